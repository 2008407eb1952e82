package apiserver_test

import (
	"bytes"
	"encoding/base64"
	"testing"

	"google.golang.org/grpc/codes"
	"k8s.io/kms/pkg/service"
)

// plainly returns an object as a plugin stores it that calls Transit without associated data.
func (n *tenant) plainly(t *testing.T, plaintext []byte, keyID string, annotations map[string][]byte) *service.DecryptRequest {
	t.Helper()
	answer := n.bao.must(t, "POST", "transit/encrypt/"+n.Key, map[string]any{
		"plaintext": base64.StdEncoding.EncodeToString(plaintext),
	})
	return &service.DecryptRequest{
		Ciphertext: []byte(answer["ciphertext"].(string)), KeyID: keyID, Annotations: annotations,
	}
}

// foreign returns objects of other plugins by the form of their key ids.
func (n *tenant) foreign(t *testing.T, plaintext []byte) map[string]*service.DecryptRequest {
	t.Helper()
	hash := "sha256:2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae"
	all := map[string]*service.DecryptRequest{}
	for range 2 {
		for name, request := range map[string]*service.DecryptRequest{
			"a number":                   n.plainly(t, plaintext, "1", nil),
			"the key's name":             n.plainly(t, plaintext, "my-key:3", nil),
			"a hash":                     n.plainly(t, plaintext, hash, nil),
			"the form of ours":           n.plainly(t, plaintext, madeUp("1").KeyID, nil),
			"the form of a newer one":    n.plainly(t, plaintext, madeUp("7").KeyID, nil),
			"annotations of another one": n.plainly(t, plaintext, "1", map[string][]byte{"version.encryption.example.org": []byte("1")}),
		} {
			all[name+" "+string(request.Ciphertext[:9])] = request
		}
		n.rotate(t)
	}
	return all
}

func TestOtherPluginsObjectsAreReadAndCounted(t *testing.T) {
	t.Parallel()
	tenant := sharedBao(t).tenant(t)
	plaintext := randomBytes(32)
	objects := tenant.foreign(t, plaintext)
	p, metrics := metered(t, tenant.Flags())
	client := p.client(t)
	for name, request := range objects {
		opened, err := client.Decrypt(t.Context(), "legacy", request)
		if err != nil || !bytes.Equal(opened, plaintext) {
			t.Errorf("%s: %v", name, err)
		}
	}
	requireLegacyReads := func(expected int) {
		t.Helper()
		if count, _ := counted(t, metrics, "vault_kube_kms_legacy_reads_total"); count != float64(expected) {
			t.Errorf("%v reads are counted for %d", count, expected)
		}
	}
	requireLegacyReads(len(objects))

	// These requests are refused, and none counts as a legacy read.
	request := tenant.plainly(t, plaintext, "1", nil)
	request.Ciphertext[len(request.Ciphertext)-8] ^= 1
	requireRefused(t, client, "a changed one", request, codes.InvalidArgument)
	request = tenant.plainly(t, plaintext, "1", map[string][]byte{"Format.vault-kube-kms": []byte("1")})
	requireRefused(t, client, "one with a mark like ours", request, codes.InvalidArgument)
	request = tenant.plainly(t, plaintext, keyID(t, client), map[string][]byte{"format.vault-kube-kms": []byte("1")})
	requireRefused(t, client, "one made to look like ours", request, codes.InvalidArgument)
	roundTrip(t, client, plaintext)
	requireLegacyReads(len(objects))
}

func TestOtherPluginsObjectsAreRefusedWithoutTheBridge(t *testing.T) {
	t.Parallel()
	tenant := sharedBao(t).tenant(t)
	objects := tenant.foreign(t, randomBytes(32))
	// Without a delay only one version is proven, before the plugin is healthy.
	p, metrics := metered(t, delayed(with(tenant.Flags(), "--legacy-decrypt=false"), 0))
	client := p.client(t)
	writes := keeperWrites(t, metrics)
	for name, request := range objects {
		requireRefused(t, client, name, request, codes.NotFound)
	}
	if calls := keeperWrites(t, metrics) - writes; calls > 0 {
		t.Errorf("%d of them reached the keeper", calls)
	}
	if count, _ := counted(t, metrics, "vault_kube_kms_legacy_reads_total"); count != 0 {
		t.Errorf("%v reads are counted", count)
	}
	roundTrip(t, client, randomBytes(32))
}
