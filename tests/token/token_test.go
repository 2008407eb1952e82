package token_test

import (
	"bytes"
	"crypto/rand"
	"path/filepath"
	"strings"
	"testing"

	"k8s.io/apiserver/pkg/storage/value/encrypt/envelope/kmsv2"
	"k8s.io/kms/pkg/service"

	"vault-kube-kms.test/parts"
)

func TestTheAPIServersClientUsesATokenThroughARotation(t *testing.T) {
	program := needed(t, "PROVIDER")
	token, err := parts.NewToken(t.TempDir())
	must(t, err)
	must(t, token.Init(program))
	socket := "unix://" + filepath.Join(shortDir(t), "kms.sock")
	serve := token.With(program, "--listen-address="+socket, "--health-port=0", "--metrics-port=0", "--rotation-delay=0s")
	process, err := parts.Way{}.Start("provider", serve, token.Variable)
	must(t, err)
	t.Cleanup(func() {
		if !process.Stop() {
			t.Error("the provider did not end on SIGTERM")
		}
	})
	client, err := kmsv2.NewGRPCService(t.Context(), socket, "token", startBound)
	must(t, err)
	seed := make([]byte, 32)
	_, _ = rand.Read(seed)
	wrap := func(version string) *service.EncryptResponse {
		t.Helper()
		if !parts.Eventually(startBound, func() bool {
			answer, err := client.Status(t.Context())
			return err == nil && answer.Healthz == "ok" && strings.HasPrefix(answer.KeyID, version+".")
		}) {
			t.Fatalf("Status was never ok with %s: %s", version, process.Printed())
		}
		sealed, err := client.Encrypt(t.Context(), "wrap", seed)
		must(t, err)
		return sealed
	}
	before := wrap("v1")
	must(t, token.Rotate(program))
	for _, sealed := range []*service.EncryptResponse{before, wrap("v2")} {
		request := &service.DecryptRequest{Ciphertext: sealed.Ciphertext, KeyID: sealed.KeyID, Annotations: sealed.Annotations}
		opened, err := client.Decrypt(t.Context(), "unwrap", request)
		if err != nil || !bytes.Equal(opened, seed) {
			t.Errorf("Decrypt of %s: %v", sealed.KeyID, err)
		}
		request.KeyID = strings.Replace(request.KeyID, ".", ".x", 1)
		if _, err := client.Decrypt(t.Context(), "tampered", request); err == nil {
			t.Errorf("Decrypt of %s under another key id succeeded", sealed.KeyID)
		}
	}
	if !strings.Contains(process.Printed(), "the sandbox is in force") {
		t.Errorf("the sandbox is not in force: %s", process.Printed())
	}
}
