package apiserver_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"k8s.io/kms/pkg/service"

	"vault-kube-kms.test/parts"
)

const (
	// The delay is longer than two key reads, so that every plugin knows a version, and has proven it, before it
	// writes.
	delay = 20 * time.Second
	// A plugin reads the key at least this often, with some time for the read itself.
	pollBound = 18 * time.Second
)

// ownWithin returns the maximum number of a plugin's own requests within this time, beside those of one key read
// with its proof: a key read every 15 s, a proof of three requests every 50 s, renewals.
func ownWithin(took time.Duration) int { return int(took / (5 * time.Second)) }

// rotatable is a key that a test can rotate.
type rotatable struct {
	flags  []string
	rotate func(t *testing.T)
}

// onEachKey runs a test with a fresh key of every keeper.
func onEachKey(t *testing.T, test func(t *testing.T, key rotatable)) {
	t.Parallel()
	t.Run("openbao", func(t *testing.T) {
		t.Parallel()
		tenant := sharedBao(t).tenant(t)
		test(t, rotatable{tenant.Flags(), tenant.rotate})
	})
	t.Run("local", func(t *testing.T) {
		t.Parallel()
		flags := localFlags(t)
		test(t, rotatable{flags, func(t *testing.T) {
			t.Helper()
			if out, err := parts.Command(needed(t, "PROVIDER"), "local", "rotate", flags[1]).CombinedOutput(); err != nil {
				t.Fatalf("local rotate: %v: %s", err, out)
			}
		}})
	})
}

// with returns the flags and some more. The last value of a flag counts.
func with(flags []string, more ...string) []string { return slices.Concat(flags, more) }

func delayed(flags []string, by time.Duration) []string {
	return with(flags, "--rotation-delay="+by.String())
}

// stored is the plaintext and the answer of one Encrypt.
type stored struct {
	sealed    *service.EncryptResponse
	plaintext []byte
}

func store(t *testing.T, client service.Service) stored {
	t.Helper()
	plaintext := randomBytes(32)
	return stored{encrypt(t, client, plaintext), plaintext}
}

// storeEach writes an object with each version up to this number. The first version exists.
func storeEach(t *testing.T, key rotatable, versions int) []stored {
	t.Helper()
	var all []stored
	for len(all) < versions {
		if len(all) > 0 {
			key.rotate(t)
		}
		// A new process reads the newest version at its start, and has no delay.
		p := start(t, delayed(key.flags, 0))
		all = append(all, store(t, p.client(t)))
		p.Stop()
	}
	return all
}

func requireAllOpen(t *testing.T, client service.Service, all ...stored) {
	t.Helper()
	for _, one := range all {
		requireOpens(t, client, one.sealed, one.plaintext)
	}
}

// keyID returns the key id of a healthy plugin's Status.
func keyID(t *testing.T, client service.Service) string {
	t.Helper()
	answer, err := client.Status(t.Context())
	if err != nil || answer.Healthz != "ok" {
		t.Fatalf("Status: %v, %v", answer, err)
	}
	return answer.KeyID
}

// madeUp returns a request with a key id of the right form that no plugin has issued.
func madeUp(version string) *service.DecryptRequest {
	return &service.DecryptRequest{
		KeyID:       "v" + version + "." + strings.Repeat("A", 22),
		Ciphertext:  []byte("vault:v" + version + ":" + strings.Repeat("A", 80)),
		Annotations: map[string][]byte{"format.vault-kube-kms": []byte("1")},
	}
}

// look makes a plugin read its key, unless it did so within the last second. It sends a key id that a peer could
// have issued.
func look(t *testing.T, client service.Service) {
	t.Helper()
	if _, err := client.Decrypt(t.Context(), "look", madeUp("4000000000")); status.Code(err) != codes.NotFound {
		t.Errorf("a key id that nobody issued: %v", err)
	}
}

func TestChecklist29_DataOfEveryRetainedVersionDecrypts(t *testing.T) {
	onEachKey(t, func(t *testing.T, key rotatable) {
		all := storeEach(t, key, 4)
		p := start(t, key.flags)
		requireAllOpen(t, p.client(t), all...)
	})
}

// TestChecklist65_OldKeyIDsDecryptAfterRotations decrypts objects from before the last rotations, as a restored
// etcd holds them.
func TestChecklist65_OldKeyIDsDecryptAfterRotations(t *testing.T) {
	onEachKey(t, func(t *testing.T, key rotatable) {
		provider, secret := parts.RandomName(), []byte("a Secret")
		before := start(t, delayed(key.flags, 0))
		old := newAPIServer(t, provider, "before", before).mustWrite(t, secret)
		id := keyID(t, before.client(t))
		before.Stop()
		for range 3 {
			key.rotate(t)
		}
		after := start(t, delayed(key.flags, 0))
		if now := keyID(t, after.client(t)); now == id || storedUnder(t, provider, old) != id {
			t.Errorf("%s before the rotations, %s after", id, now)
		}
		newAPIServer(t, provider, "after", after).requireReads(t, old, secret, true)
	})
}

// TestChecklist62_AReturnToAnOlderKeyGivesAThirdKeyID expects a new key id after a return to an older KEK, so that every
// object is written again.
func TestChecklist62_AReturnToAnOlderKeyGivesAThirdKeyID(t *testing.T) {
	onEachKeeper(t, func(t *testing.T, flags []string) {
		var other []string
		if slices.Contains(flags, "--keeper=local") {
			other = localFlags(t)
		} else {
			other = sharedBao(t).tenant(t).Flags()
		}
		first := start(t, flags)
		ofA := store(t, first.client(t))
		b := start(t, other)
		ofB := store(t, b.client(t))
		again := start(t, with(flags, "--key-generation=1"))
		ofC := store(t, again.client(t))

		ids := []string{ofA.sealed.KeyID, ofB.sealed.KeyID, ofC.sealed.KeyID}
		if slices.Sort(ids); len(slices.Compact(ids)) != 3 {
			t.Errorf("key ids repeat: %v", ids)
		}
		requireAllOpen(t, again.client(t), ofA, ofC)
		requireAllOpen(t, b.client(t), ofB)
		// The nodes restart one after the other.
		requireAllOpen(t, first.client(t), ofA, ofC)
	})
}
