package apiserver_test

import (
	"bytes"
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"vault-kube-kms.test/parts"
)

// TestAnAuthorsKeeperIsServed tests a program with its own keeper that uses only our public interface
// (examples/custom_keeper.rs): serve, check, help, flags, variables, errors, metrics and statusz.
func TestAnAuthorsKeeperIsServed(t *testing.T) {
	t.Parallel()
	program := filepath.Join(filepath.Dir(needed(t, "PROVIDER")), "examples", "custom_keeper")
	run := func(args ...string) string {
		out, _ := parts.Command(append([]string{program}, args...)...).CombinedOutput()
		return string(out)
	}
	help := run("--help")
	for _, text := range []string{"memory-kube-kms check", "--memory-versions N", "Where the key is: memory [memory]", "MEMORY_KUBE_KMS_"} {
		if !strings.Contains(help, text) {
			t.Errorf("the help does not have %q:\n%s", text, help)
		}
	}
	for _, text := range []string{"--vault-address", "--local-key-file", "local init", "  vault-kube-kms"} {
		if strings.Contains(help, text) {
			t.Errorf("the help has %q", text)
		}
	}
	wrong := run("--memory-versions=0", "--vault-address=https://v", "--outage-grace=soon")
	for _, text := range []string{"memory-kube-kms: --memory-versions (", "--vault-address (", "--outage-grace (", "3 configuration error(s)"} {
		if !strings.Contains(wrong, text) {
			t.Errorf("the error does not contain %q:\n%s", text, wrong)
		}
	}

	socket, port := filepath.Join(shortDir(t), "kms.sock"), parts.FreePort()
	process, err := parts.Way{}.Start("memory-kube-kms", []string{
		program, "--listen-address=unix://" + socket, "--health-port=0", fmt.Sprintf("--metrics-port=%d", port),
		"--rotation-delay=0s",
	}, "MEMORY_KUBE_KMS_MEMORY_VERSIONS=2")
	must(t, err)
	t.Cleanup(func() {
		if !process.Stop() {
			t.Error("the program did not end on SIGTERM")
		}
	})
	client := clientOf(t, "unix://"+socket, startBound)
	if !parts.Eventually(startBound, func() bool {
		answer, err := client.Status(t.Context())
		return err == nil && answer.Healthz == "ok" && strings.HasPrefix(answer.KeyID, "v2.")
	}) {
		t.Fatalf("Status was never ok: %s", process.Printed())
	}
	seed := randomBytes(32)
	sealed, err := client.Encrypt(t.Context(), "author", seed)
	must(t, err)
	opened, err := client.Decrypt(t.Context(), "author", asStored(sealed))
	if err != nil || !bytes.Equal(opened, seed) {
		t.Errorf("Decrypt: %v", err)
	}
	inside := fmt.Sprintf("http://127.0.0.1:%d", port)
	if page := get(t, inside+"/statusz"); !strings.Contains(page, "memory-kube-kms 1.0.0") {
		t.Errorf("statusz: %s", page)
	}
	if metrics := get(t, inside+"/metrics"); !strings.Contains(metrics, "vault_kube_kms_healthy 1") {
		t.Errorf("metrics: %s", metrics)
	}
	checked := run("check", "--listen-address=unix://"+filepath.Join(shortDir(t), "kms.sock"))
	for _, text := range []string{"PASS  key", "PASS  binding"} {
		if !strings.Contains(checked, text) {
			t.Errorf("check: %s", checked)
		}
	}
}
