package apiserver_test

import (
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"k8s.io/kms/pkg/service"

	"vault-kube-kms.test/parts"
)

// TestChecklist16_ALostPermissionShowsWithin75Seconds expects that the next proof finds a lost permission.
func TestChecklist16_ALostPermissionShowsWithin75Seconds(t *testing.T) {
	t.Parallel()
	for lost, left := range map[string]string{"encrypt": "decrypt", "decrypt": "encrypt"} {
		t.Run(lost, func(t *testing.T) {
			t.Parallel()
			tenant := sharedBao(t).tenant(t)
			p := start(t, tenant.Flags())
			client := p.client(t)
			one := store(t, client)
			tenant.allow(t, "read keys", "update "+left)
			since := time.Now()
			requireStillWorks := func() {
				t.Helper()
				if left == "decrypt" {
					requireAllOpen(t, client, one)
				} else {
					store(t, client)
				}
			}
			requireStillWorks()
			text := waitUnhealthy(t, client, 75*time.Second)
			t.Logf("after %v: %s", time.Since(since), text)
			if !strings.HasPrefix(text, "permission-denied: ") || !strings.Contains(text, lost+"ing") {
				t.Errorf("%q does not name the lost permission", text)
			}
			if left == "decrypt" {
				requireStillWorks()
			}
			if !p.Alive() {
				t.Error("the plugin has ended")
			}
			tenant.allow(t, "read keys", "update encrypt", "update decrypt")
			p.waitHealthy(t)
			requireAllOpen(t, client, one, store(t, client))
		})
	}
}

// waitUnhealthy waits until Status fails and returns the error.
func waitUnhealthy(t *testing.T, client service.Service, bound time.Duration) string {
	t.Helper()
	var err error
	if !parts.EventuallyEvery(100*time.Millisecond, bound, func() bool {
		var answer *service.StatusResponse
		answer, err = client.Status(t.Context())
		if err == nil && answer.Healthz != "ok" {
			t.Fatalf("Status is neither ok nor an error: %v", answer)
		}
		return err != nil
	}) {
		t.Fatalf("still healthy after %v", bound)
	}
	requireOneLine(t, message(err))
	return message(err)
}

func TestChecklist42_WithoutTheRightToEncryptDecryptWorks(t *testing.T) {
	t.Parallel()
	tenant := sharedBao(t).tenant(t)
	before := start(t, tenant.Flags())
	one := store(t, before.client(t))
	tenant.allow(t, "read keys", "update decrypt")
	requireAllOpen(t, before.client(t), one)

	// The plugin has never been healthy, and decrypts.
	after := launch(t, newEndpoint(t), tenant.Flags())
	after.waitAccepts(t)
	client := after.client(t)
	var err error
	if !parts.Eventually(startBound, func() bool {
		_, err = client.Status(t.Context())
		return strings.HasPrefix(message(err), "permission-denied: ")
	}) {
		t.Fatalf("Status: %v", err)
	}
	requireAllOpen(t, client, one)
	if _, err := client.Encrypt(t.Context(), "refused", randomBytes(32)); status.Code(err) != codes.PermissionDenied {
		t.Errorf("Encrypt: %v", err)
	}
}

func TestChecklist41_AnArchivedVersionIsNamed(t *testing.T) {
	t.Parallel()
	tenant := sharedBao(t).tenant(t)
	all := storeEach(t, rotatable{tenant.Flags(), tenant.rotate}, 2)
	known := start(t, tenant.Flags())
	requireAllOpen(t, known.client(t), all...)
	config := "transit/keys/" + tenant.Key + "/config"
	tenant.bao.must(t, "POST", config, map[string]any{"min_decryption_version": 2})
	late := start(t, tenant.Flags())
	for name, p := range map[string]*plugin{"that knew the version": known, "that never knew it": late} {
		client := p.client(t)
		_, err := client.Decrypt(t.Context(), "archived", asStored(all[0].sealed))
		text := message(err)
		t.Logf("%s: %s", name, text)
		if status.Code(err) != codes.FailedPrecondition || !strings.HasPrefix(text, "version-retired: ") ||
			!strings.Contains(text, "version 1") || !strings.Contains(text, "min_decryption_version") {
			t.Errorf("by a process %s: %v", name, err)
		}
		requireAllOpen(t, client, all[1])
		p.requireHealthy(t)
	}
	// An archived version that comes back can be used at once, before the next poll.
	tenant.bao.must(t, "POST", config, map[string]any{"min_decryption_version": 1})
	for name, p := range map[string]*plugin{"that knew the version": known, "that never knew it": late} {
		client := p.client(t)
		var err error
		if !parts.EventuallyEvery(200*time.Millisecond, 3*time.Second, func() bool {
			_, err = client.Decrypt(t.Context(), "back", asStored(all[0].sealed))
			return err == nil
		}) {
			t.Errorf("by a process %s: %v", name, err)
		}
		requireAllOpen(t, client, all...)
	}
}
