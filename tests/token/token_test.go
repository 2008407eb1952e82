package token_test

import (
	"bytes"
	"crypto/rand"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"k8s.io/apiserver/pkg/storage/value/encrypt/envelope/kmsv2"
	"k8s.io/kms/pkg/service"

	"vault-kube-kms.test/parts"
)

// newToken makes a token of SoftHSM with a user PIN and no key. It returns the flags for it and the
// variable that names its configuration.
func newToken(t *testing.T) (flags []string, variable string) {
	t.Helper()
	dir := t.TempDir()
	tokens, pin, configuration := filepath.Join(dir, "tokens"), filepath.Join(dir, "pin"), filepath.Join(dir, "softhsm2.conf")
	must(t, os.Mkdir(tokens, 0o700))
	must(t, os.WriteFile(pin, []byte("right-canary\n"), 0o600))
	must(t, os.WriteFile(configuration, fmt.Appendf(nil, "directories.tokendir = %s\n", tokens), 0o600))
	variable = "SOFTHSM2_CONF=" + configuration
	run(t, variable, "softhsm2-util", "--init-token", "--free", "--label=kms", "--so-pin=12345678", "--pin=right-canary")
	return []string{
		"--keeper=pkcs11", "--pkcs11-module=/usr/lib/softhsm/libsofthsm2.so", "--pkcs11-token-label=kms",
		"--pkcs11-pin-file=" + pin, "--pkcs11-needs=" + configuration, "--pkcs11-needs=" + tokens,
	}, variable
}

// run runs a command that must succeed.
func run(t *testing.T, variable string, args ...string) {
	t.Helper()
	command := parts.Command(args...)
	command.Env = append(command.Env, variable)
	if out, err := command.CombinedOutput(); err != nil {
		t.Fatalf("%v: %v: %s", args, err, out)
	}
}

func TestTheAPIServersClientUsesATokenThroughARotation(t *testing.T) {
	program := needed(t, "PROVIDER")
	flags, variable := newToken(t)
	with := func(words ...string) []string { return append(append([]string{program}, words...), flags...) }
	run(t, variable, with("pkcs11", "init")...)
	socket := "unix://" + filepath.Join(shortDir(t), "kms.sock")
	serve := with("--listen-address="+socket, "--health-port=0", "--metrics-port=0", "--rotation-delay=0s")
	process, err := parts.Way{}.Start("provider", serve, variable)
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
	run(t, variable, with("pkcs11", "rotate")...)
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
