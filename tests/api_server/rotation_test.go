package apiserver_test

import (
	"strconv"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"k8s.io/kms/pkg/service"

	"vault-kube-kms.test/parts"
)

// takeover asks Status and Encrypt in turn until the key id has changed, and a while longer. It
// returns all key ids that Status told, in order, and what was written under each.
func takeover(t *testing.T, client service.Service, bound time.Duration) (ids []string, all []stored) {
	t.Helper()
	tell := func() string {
		id := keyID(t, client)
		if len(ids) == 0 || ids[len(ids)-1] != id {
			ids = append(ids, id)
		}
		return id
	}
	for until := time.Now().Add(bound); time.Now().Before(until); pause(t.Context(), 10*time.Millisecond) {
		before := tell()
		one := store(t, client)
		if after := tell(); one.sealed.KeyID != before && one.sealed.KeyID != after {
			t.Errorf("Encrypt uses %s between %s and %s", one.sealed.KeyID, before, after)
		}
		if len(all) == 0 || all[len(all)-1].sealed.KeyID != one.sealed.KeyID {
			all = append(all, one)
		}
		if len(ids) == 2 && until.After(time.Now().Add(2*time.Second)) {
			until = time.Now().Add(2 * time.Second)
		}
	}
	return ids, all
}

// Checklist 26, too: what Encrypt uses is what Status told before it, or tells after it.
func TestChecklist57_ARotationChangesTheKeyIDOnce(t *testing.T) {
	onEachKey(t, func(t *testing.T, key rotatable) {
		p := start(t, delayed(key.flags, delay))
		client := p.client(t)
		rotated := time.Now()
		key.rotate(t)
		ids, all := takeover(t, client, delay+5*time.Second)
		took := time.Since(rotated) - 2*time.Second
		if len(ids) != 2 || !strings.HasPrefix(ids[1], "v2.") {
			t.Fatalf("key ids: %v", ids)
		}
		// Creation times have whole seconds.
		if took < delay-2*time.Second || took > delay+2*time.Second {
			t.Errorf("version 2 writes after %v", took)
		}
		if len(all) != 2 || all[0].sealed.KeyID != ids[0] || all[1].sealed.KeyID != ids[1] {
			t.Fatalf("Encrypt used %d key ids, not %v", len(all), ids)
		}
		requireAllOpen(t, client, all...)
	})
}

// A rotation that nobody has seen yet changes nothing: Encrypt holds to what Status told, and
// never to the keeper's newest version.
func TestChecklist26_ARotationBetweenStatusAndEncrypt(t *testing.T) {
	onEachKey(t, func(t *testing.T, key rotatable) {
		p := start(t, key.flags)
		client := p.client(t)
		id := keyID(t, client)
		key.rotate(t)
		if one := store(t, client); one.sealed.KeyID != id || !strings.Contains(string(one.sealed.Ciphertext), ":v1:") {
			t.Errorf("Status told %s, Encrypt uses %s and %.9s", id, one.sealed.KeyID, one.sealed.Ciphertext)
		}
		// Neither does one that has just been seen.
		look(t, client)
		if one := store(t, client); one.sealed.KeyID != id || keyID(t, client) != id {
			t.Errorf("Status told %s, Encrypt uses %s", id, one.sealed.KeyID)
		}
	})
}

func TestChecklist59_TwoRotationsBetweenPollsAreOneChange(t *testing.T) {
	onEachKey(t, func(t *testing.T, key rotatable) {
		// Both versions are old enough by the time they are seen.
		p := start(t, delayed(key.flags, time.Second))
		client := p.client(t)
		first := store(t, client)
		key.rotate(t)
		peer := start(t, delayed(key.flags, 0))
		second := store(t, peer.client(t))
		peer.Stop()
		key.rotate(t)

		var next string
		var err error
		parts.Eventually(pollBound, func() bool {
			var answer *service.StatusResponse
			if answer, err = client.Status(t.Context()); err == nil {
				next = answer.KeyID
			}
			return err == nil && next != first.sealed.KeyID
		})
		if err != nil || !strings.HasPrefix(next, "v3.") {
			t.Fatalf("after %s comes %s, %v", first.sealed.KeyID, next, err)
		}
		third := store(t, client)
		if third.sealed.KeyID != next {
			t.Errorf("Status tells %s, Encrypt uses %s", next, third.sealed.KeyID)
		}
		requireAllOpen(t, client, first, second, third)
	})
}

func TestChecklist31_APeerRotatedFirst(t *testing.T) {
	t.Parallel()
	tenant := sharedBao(t).tenant(t)
	p, metrics := metered(t, tenant.Flags())
	client := p.client(t)
	id := keyID(t, client)
	tenant.rotate(t)
	peer := start(t, delayed(tenant.Flags(), 0))
	theirs := store(t, peer.client(t))
	if !strings.HasPrefix(theirs.sealed.KeyID, "v2.") {
		t.Fatalf("the peer writes under %s", theirs.sealed.KeyID)
	}
	if version, _ := counted(t, metrics, "vault_kube_kms_next_version_seconds"); version != 0 {
		t.Fatal("the version is known already, which proves nothing")
	}
	reads := keeperReads(t, metrics)
	for range 10 {
		requireAllOpen(t, client, theirs)
	}
	if looks := keeperReads(t, metrics) - reads; looks != 1 {
		t.Errorf("%d looks at the keeper", looks)
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
	// One a second, one at the start, and one of the observer's own with its proof.
	most := int(time.Since(started).Seconds()) + 2
	if more := keeperReads(t, metrics) - reads; more > most || more == 0 {
		t.Errorf("%d looks at the keeper in %v", more, time.Since(started))
	}
	if more := keeperWrites(t, metrics) - writes; more > 2 {
		t.Errorf("%d of the made-up ciphertexts reached the keeper", more)
	}
	requireAllOpen(t, client, one)
	p.requireHealthy(t)
}

// A plugin may learn of a version from a peer's object when that version should write already.
// It then has to prove it, which must not keep the API server from writing for a whole poll.
func TestAVersionThatIsLearntLateWritesSoon(t *testing.T) {
	t.Parallel()
	tenant := sharedBao(t).tenant(t)
	p := start(t, delayed(tenant.Flags(), time.Second))
	client := p.client(t)
	tenant.rotate(t)
	peer := start(t, delayed(tenant.Flags(), 0))
	peers := peer.client(t)
	theirs := store(t, peers)
	// Until the version is old enough to write here too.
	pause(t.Context(), 2*time.Second)
	requireAllOpen(t, client, theirs)
	learnt := time.Now()
	var err error
	parts.Eventually(pollBound, func() bool {
		var answer *service.StatusResponse
		answer, err = client.Status(t.Context())
		return err == nil && answer.KeyID == theirs.sealed.KeyID
	})
	if took := time.Since(learnt); err != nil || took > 3*time.Second {
		t.Errorf("it writes %v after it was learnt: %v", took, err)
	}
	roundTrip(t, client, randomBytes(32))
}
