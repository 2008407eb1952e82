package apiserver_test

import (
	"bytes"
	"math/rand/v2"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"k8s.io/kms/pkg/service"
)

func TestChecklist28_ObjectsDecryptInAnyOrderAfterRestarts(t *testing.T) {
	onEachKeeper(t, func(t *testing.T, flags []string) {
		type stored struct {
			sealed    *service.EncryptResponse
			plaintext []byte
		}
		var all []stored
		for range 3 {
			p := start(t, flags)
			client := p.client(t)
			for range 10 {
				plaintext := randomBytes(32)
				all = append(all, stored{encrypt(t, client, plaintext), plaintext})
			}
			rand.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
			for range 2 {
				for _, one := range all {
					requireOpens(t, client, one.sealed, one.plaintext)
				}
			}
			p.Stop()
		}
	})
}

func TestChecklist30_AForeignKeyIDIsRefused(t *testing.T) {
	onEachPlugin(t, requireForeignKeyIDsRefused)
}

func requireForeignKeyIDsRefused(t *testing.T, p *plugin) {
	client := p.client(t)
	sealed := encrypt(t, client, randomBytes(32))
	if string(sealed.Annotations["format.vault-kube-kms"]) != "1" {
		t.Errorf("annotations: %q", sealed.Annotations)
	}
	for _, keyID := range []string{
		"1", "another-plugin", "v1", "v1.AAAAAAAAAAAAAAAAAAAAAA", "v99.AAAAAAAAAAAAAAAAAAAAAA",
		sealed.KeyID + "x", strings.ToUpper(sealed.KeyID), " " + sealed.KeyID, sealed.KeyID[:len(sealed.KeyID)-1],
	} {
		request := asStored(sealed)
		request.KeyID = keyID
		if _, err := client.Decrypt(t.Context(), "foreign", request); status.Code(err) != codes.NotFound {
			t.Errorf("key id %q: %v", keyID, err)
		}
	}
	request := asStored(sealed)
	request.KeyID = ""
	if _, err := client.Decrypt(t.Context(), "none", request); status.Code(err) != codes.InvalidArgument {
		t.Errorf("without a key id: %v", err)
	}
}

func TestChecklist30_AForeignKeyIDNeverReachesTheKeeper(t *testing.T) {
	t.Parallel()
	p, metrics := metered(t, sharedBao(t).tenant(t).Flags())
	before := keeperWrites(t, metrics)
	requireForeignKeyIDsRefused(t, p)
	if calls := keeperWrites(t, metrics) - before; calls != 1 {
		t.Errorf("%d calls of the keeper for one Encrypt and foreign Decrypts", calls)
	}
}

func TestChecklist32_EveryChangeOfTheCiphertextIsRefused(t *testing.T) {
	onEachPlugin(t, func(t *testing.T, p *plugin) {
		client := p.client(t)
		plaintext := randomBytes(32)
		sealed := encrypt(t, client, plaintext)
		requireRefused := func(what string, at int, ciphertext []byte) {
			t.Helper()
			request := asStored(sealed)
			request.Ciphertext = ciphertext
			opened, err := client.Decrypt(t.Context(), "changed", request)
			if status.Code(err) != codes.InvalidArgument {
				t.Errorf("%s at %d: %d bytes, the true ones: %v, %v",
					what, at, len(opened), bytes.Equal(opened, plaintext), err)
			}
		}
		for i := range sealed.Ciphertext {
			flipped := bytes.Clone(sealed.Ciphertext)
			flipped[i] ^= 1 << rand.IntN(8)
			requireRefused("flip", i, flipped)
			// Only the case of one letter changes, which a lenient base64 decoder might accept.
			flipped = bytes.Clone(sealed.Ciphertext)
			flipped[i] ^= 0x20
			requireRefused("flip of case", i, flipped)
			requireRefused("truncation", i, sealed.Ciphertext[:i])
			requireRefused("truncation from the start", i+1, sealed.Ciphertext[i+1:])
		}
		for _, more := range []string{"\x00", "\n", " ", "=", "==", "A", "AAAA", string(sealed.Ciphertext)} {
			requireRefused("extension", 0, append(bytes.Clone(sealed.Ciphertext), more...))
			requireRefused("extension before", 0, append([]byte(more), sealed.Ciphertext...))
		}
		requireOpens(t, client, sealed, plaintext)
	})
}

func TestChecklist37_AnEmptyCiphertextIsRefused(t *testing.T) {
	onEachPlugin(t, requireEmptyCiphertextRefused)
}

func requireEmptyCiphertextRefused(t *testing.T, p *plugin) {
	client := p.client(t)
	sealed := encrypt(t, client, randomBytes(32))
	sealed.Ciphertext = nil
	if _, err := client.Decrypt(t.Context(), "empty", asStored(sealed)); status.Code(err) != codes.InvalidArgument {
		t.Errorf("with our annotations: %v", err)
	}
	sealed.Annotations = nil
	if _, err := client.Decrypt(t.Context(), "empty", asStored(sealed)); status.Code(err) != codes.InvalidArgument {
		t.Errorf("without annotations: %v", err)
	}
}

func TestChecklist37_AnEmptyCiphertextNeverReachesTheKeeper(t *testing.T) {
	t.Parallel()
	p, metrics := metered(t, sharedBao(t).tenant(t).Flags())
	before := keeperWrites(t, metrics)
	requireEmptyCiphertextRefused(t, p)
	if calls := keeperWrites(t, metrics) - before; calls != 1 {
		t.Errorf("%d calls of the keeper for one Encrypt and empty Decrypts", calls)
	}
}

func TestChecklist38_FieldsAtTheirLimits(t *testing.T) {
	onEachPlugin(t, func(t *testing.T, p *plugin) {
		client := p.client(t)
		sealed := encrypt(t, client, randomBytes(32))
		ours := sealed.Annotations
		annotations := func(size int) map[string][]byte {
			return map[string][]byte{"a.b": make([]byte, size-3)}
		}
		text := func(size int) string { return strings.Repeat("k", size) }
		for _, c := range []struct {
			name        string
			keyID       string
			ciphertext  int
			annotations map[string][]byte
			within      bool
		}{
			{"all at their limits", text(1024), 1024, annotations(32_768), true},
			{"all at their limits, ours", text(1024), 1024, ours, true},
			{"key id over", text(1025), 32, ours, false},
			{"key id over, not ours", text(1025), 32, nil, false},
			{"ciphertext over", sealed.KeyID, 1025, ours, false},
			{"ciphertext over, not ours", sealed.KeyID, 1025, nil, false},
			{"annotations over", sealed.KeyID, 32, annotations(32_769), false},
			{"all far over", text(1 << 20), 1 << 20, annotations(1 << 20), false},
		} {
			_, err := client.Decrypt(t.Context(), "limits", &service.DecryptRequest{
				KeyID: c.keyID, Ciphertext: bytes.Repeat([]byte("c"), c.ciphertext), Annotations: c.annotations,
			})
			code := status.Code(err)
			if code != codes.InvalidArgument && !(c.within && code == codes.NotFound) {
				t.Errorf("%s: %v", c.name, err)
			}
		}
		p.requireHealthy(t)
	})
}
