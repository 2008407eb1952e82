package apiserver_test

import (
	"fmt"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"k8s.io/kms/pkg/service"

	"vault-kube-kms.test/parts"
)

// takeover calls Status and Encrypt in turn until the key id has changed, and some time longer. It returns all
// key ids of Status in order, the objects written under each, and the time of the second key id.
func takeover(t *testing.T, client service.Service, bound time.Duration) (ids []string, all []stored, at time.Time) {
	t.Helper()
	tell := func() string {
		id := keyID(t, client)
		if len(ids) == 0 || ids[len(ids)-1] != id {
			ids, at = append(ids, id), time.Now()
		}
		return id
	}
	parts.Eventually(bound, func() bool {
		before := tell()
		one := store(t, client)
		if after := tell(); one.sealed.KeyID != before && one.sealed.KeyID != after {
			t.Errorf("Encrypt uses %s between %s and %s", one.sealed.KeyID, before, after)
		}
		if len(all) == 0 || all[len(all)-1].sealed.KeyID != one.sealed.KeyID {
			all = append(all, one)
		}
		return len(ids) > 1 && time.Since(at) > 2*time.Second
	})
	return ids, all, at
}

// TestChecklist57_ARotationChangesTheKeyIDOnce also covers checklist 26: Encrypt uses the key id of the Status
// before it or after it.
func TestChecklist57_ARotationChangesTheKeyIDOnce(t *testing.T) {
	onEachKey(t, func(t *testing.T, key rotatable) {
		p := start(t, delayed(key.flags, delay))
		client := p.client(t)
		rotated, watch := time.Now(), parts.StartWatch()
		key.rotate(t)
		ids, all, at := takeover(t, client, delay+5*time.Second)
		took := at.Sub(rotated)
		if len(ids) != 2 || !strings.HasPrefix(ids[1], "v2.") {
			t.Fatalf("key ids: %v", ids)
		}
		// Creation times are whole seconds.
		if took < delay-2*time.Second || took > delay+watch.Stretched(2*time.Second) {
			t.Errorf("version 2 writes after %v", took)
		}
		if len(all) != 2 || all[0].sealed.KeyID != ids[0] || all[1].sealed.KeyID != ids[1] {
			t.Fatalf("Encrypt used %d key ids, not %v", len(all), ids)
		}
		requireAllOpen(t, client, all...)
	})
}

// TestChecklist26_ARotationBetweenStatusAndEncrypt expects that Encrypt uses the version of Status, and not the
// keeper's newest version, which the plugin has not read yet.
func TestChecklist26_ARotationBetweenStatusAndEncrypt(t *testing.T) {
	onEachKey(t, func(t *testing.T, key rotatable) {
		p := start(t, key.flags)
		client := p.client(t)
		id := keyID(t, client)
		key.rotate(t)
		if one := store(t, client); one.sealed.KeyID != id || !strings.Contains(string(one.sealed.Ciphertext), ":v1:") {
			t.Errorf("Status told %s, Encrypt uses %s and %.9s", id, one.sealed.KeyID, one.sealed.Ciphertext)
		}
		// A version that the plugin has just read does not change this either.
		look(t, client)
		if one := store(t, client); one.sealed.KeyID != id || keyID(t, client) != id {
			t.Errorf("Status told %s, Encrypt uses %s", id, one.sealed.KeyID)
		}
	})
}

// requireSwitch calls Status and Encrypt in turn until `done` holds for the key id of Status. No call may fail, and
// each must use the key id `before`, or one that begins with `after`. It returns the last object.
func requireSwitch(t *testing.T, client service.Service, before, after string, done func(id string) bool) (last stored) {
	t.Helper()
	var id string
	if !parts.EventuallyEvery(20*time.Millisecond, pollBound, func() bool {
		id = keyID(t, client)
		last = store(t, client)
		for _, used := range []string{id, last.sealed.KeyID} {
			if used != before && !strings.HasPrefix(used, after) {
				t.Fatalf("after %s comes %s", before, used)
			}
		}
		return done(id)
	}) {
		t.Fatalf("%s still writes, and not %s", id, after)
	}
	return last
}

// TestChecklist59_TwoRotationsBetweenPollsAreOneChange stops the process during both rotations, for longer than the
// time between two reads of the key. It expects one change of the key id, and that no call fails.
func TestChecklist59_TwoRotationsBetweenPollsAreOneChange(t *testing.T) {
	onEachKey(t, func(t *testing.T, key rotatable) {
		const stopped = 20 * time.Second
		// Both versions are old enough when the plugin reads them. The grace time is longer than the stop, so that
		// the age of the last read is not a reason to fail.
		p := start(t, with(delayed(key.flags, time.Second), "--outage-grace=10m"))
		client := p.client(t)
		first := store(t, client)
		// The plugin must not read the key in between.
		p.Signal(syscall.SIGSTOP)
		began := time.Now()
		key.rotate(t)
		peer := start(t, delayed(key.flags, 0))
		second := store(t, peer.client(t))
		peer.Stop()
		key.rotate(t)
		pause(t.Context(), max(stopped-time.Since(began), 2*time.Second))
		p.Signal(syscall.SIGCONT)

		third := requireSwitch(t, client, first.sealed.KeyID, "v3.", func(id string) bool { return strings.HasPrefix(id, "v3.") })
		if id := keyID(t, client); third.sealed.KeyID != id {
			t.Errorf("Status tells %s, Encrypt uses %s", id, third.sealed.KeyID)
		}
		requireAllOpen(t, client, first, second, third)
	})
}

func TestChecklist31_APeerRotatedFirst(t *testing.T) {
	t.Parallel()
	tenant := sharedBao(t).tenant(t)
	p, metrics := metered(t, delayed(tenant.Flags(), 10*time.Minute))
	client := p.client(t)
	id := keyID(t, client)
	peer := start(t, delayed(tenant.Flags(), 0)).client(t)
	// The first read of an object reads the key. A second later, the plugin reads it again to prove the new
	// version, which is counted too if the reads of the objects take as long. In most rounds the plugin does not
	// read the key by itself between the rotation and the reads. One such round is enough.
	for version := 2; ; version++ {
		tenant.rotate(t)
		var theirs stored
		if !parts.Eventually(pollBound, func() bool {
			look(t, peer)
			theirs = store(t, peer)
			return strings.HasPrefix(theirs.sealed.KeyID, fmt.Sprintf("v%d.", version))
		}) {
			t.Fatalf("the peer writes under %s", theirs.sealed.KeyID)
		}
		reads := keeperReads(t, metrics)
		for range 10 {
			requireAllOpen(t, client, theirs)
		}
		looks := keeperReads(t, metrics) - reads
		if looks == 1 || looks == 2 {
			break
		}
		if t.Logf("%d reads of the key", looks); version > 10 {
			t.Fatal("ten reads of objects do not share a read of the key")
		}
	}
	if now := keyID(t, client); now != id {
		t.Errorf("version 2 writes before its time: %s", now)
	}
}

func TestChecklist31_AFloodOfNewerKeyIDsIsBounded(t *testing.T) {
	t.Parallel()
	p, metrics := metered(t, sharedBao(t).tenant(t).Flags())
	client := p.client(t)
	one := store(t, client)
	reads, writes := keeperReads(t, metrics), keeperWrites(t, metrics)
	started := time.Now()
	for i := range 500 {
		request := madeUp(strconv.Itoa(1_000 + i))
		if _, err := client.Decrypt(t.Context(), "flood", request); status.Code(err) != codes.NotFound {
			t.Fatalf("%s: %v", request.KeyID, err)
		}
	}
	// One read a second, one at the start, and those of the observer with their proofs.
	own := ownWithin(time.Since(started))
	most := int(time.Since(started).Seconds()) + 2 + own
	if more := keeperReads(t, metrics) - reads; more > most || more == 0 {
		t.Errorf("%d reads of the key in %v", more, time.Since(started))
	}
	if more := keeperWrites(t, metrics) - writes; more > 2+own {
		t.Errorf("%d of the made-up ciphertexts reached the keeper", more)
	}
	requireAllOpen(t, client, one)
	p.requireHealthy(t)
}

// TestAVersionThatIsReadLateWritesSoon makes a plugin learn of a version from a peer's object when that version
// should write already. The plugin must prove it without a pause of the API server's writes for a whole poll. With
// the longer delay, the plugin may read some of the versions by itself, before or after their time. No call may fail.
func TestAVersionThatIsReadLateWritesSoon(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		delay     time.Duration
		rotations int
	}{{time.Second, 1}, {8 * time.Second, 3}} {
		t.Run(fmt.Sprintf("%d_after_%v", c.rotations, c.delay), func(t *testing.T) {
			t.Parallel()
			tenant := sharedBao(t).tenant(t)
			client := start(t, delayed(tenant.Flags(), c.delay)).client(t)
			peer := start(t, delayed(tenant.Flags(), 0)).client(t)
			all := []stored{store(t, client)}
			for version := range c.rotations {
				before := all[len(all)-1].sealed.KeyID
				tenant.rotate(t)
				rotated := time.Now()
				look(t, peer)
				theirs := requireSwitch(t, peer, before, fmt.Sprintf("v%d.", version+2), func(id string) bool { return id != before })
				// The version is then old enough to write here too.
				requireSwitch(t, client, before, theirs.sealed.KeyID, func(string) bool {
					return time.Since(rotated) > c.delay+time.Second
				})
				requireAllOpen(t, client, theirs)
				learnt := parts.StartWatch()
				ours := requireSwitch(t, client, before, theirs.sealed.KeyID, func(id string) bool { return id != before })
				if learnt.Calm() > 3*time.Second {
					t.Errorf("the version writes %v after the plugin has read it", learnt)
				}
				all = append(all, theirs, ours)
			}
			requireAllOpen(t, client, all...)
		})
	}
}
