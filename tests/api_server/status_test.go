package apiserver_test

import (
	"encoding/pem"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"
	"unicode/utf8"

	"k8s.io/apiserver/pkg/storage/value/encrypt/envelope/kmsv2"
	"k8s.io/kms/pkg/service"

	"vault-kube-kms.test/parts"
)

// statusBound is shorter than the time limit of a request to the keeper (2.5 s), so a Status that waits for a
// request is too late. The benchmarks measure the speed of Status.
const statusBound = 2 * time.Second

// tokenShape matches a token of OpenBao or Vault.
var tokenShape = regexp.MustCompile(`\b(hv)?[sb]\.[A-Za-z0-9_-]{24,}`)

func TestChecklist12_StatusOfAHealthyPlugin(t *testing.T) {
	onEachPlugin(t, func(t *testing.T, p *plugin) {
		answer, err := p.client(t).Status(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if answer.Version != "v2" || answer.Healthz != "ok" {
			t.Errorf("version %q, healthz %q", answer.Version, answer.Healthz)
		}
		if _, err := kmsv2.ValidateKeyID(answer.KeyID); err != nil || !utf8.ValidString(answer.KeyID) {
			t.Errorf("key_id %q: %v", answer.KeyID, err)
		}
	})
}

// TestChecklist13_TheVersionIsTheSameInEveryState expects one version in each state: an API server rejects a
// plugin whose version changes.
func TestChecklist13_TheVersionIsTheSameInEveryState(t *testing.T) {
	t.Parallel()
	tenant := sharedBao(t).tenant(t)
	via := newForwarder(t, tenant.bao.Address)
	via.start(t)
	flags := append(tenant.FlagsVia(via.address), "--outage-policy=keep-writing", "--outage-grace=0s")
	p := start(t, flags)
	client := p.client(t)
	healthy, err := client.Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	via.stop()
	var ailing *service.StatusResponse
	if !parts.Eventually(30*time.Second, func() bool {
		ailing, err = client.Status(t.Context())
		return err != nil || ailing.Healthz != "ok"
	}) || err != nil {
		t.Fatalf("with the keeper down: %v, %v", ailing, err)
	}
	if healthy.Version != "v2" || ailing.Version != "v2" || ailing.KeyID != healthy.KeyID {
		t.Errorf("healthy %v, with a fault %v", healthy, ailing)
	}
	requireOneLine(t, ailing.Healthz)
}

func TestChecklist14_TheKeyIDIsStable(t *testing.T) {
	onEachKeeper(t, func(t *testing.T, flags []string) {
		ids := map[string]bool{}
		for range 2 {
			p := start(t, flags)
			client := p.client(t)
			for range 500 {
				answer, err := client.Status(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				ids[answer.KeyID] = true
			}
			p.Stop()
		}
		if len(ids) != 1 {
			t.Errorf("several key ids: %v", ids)
		}
	})
}

func TestChecklist17_EveryCauseHasAStatusOfItsOwn(t *testing.T) {
	t.Parallel()
	cases := []struct {
		name, code, cause string
		flags             func(t *testing.T) (flags []string, secretID string)
	}{
		{"sealed", "keeper-sealed", "sealed", func(t *testing.T) ([]string, string) {
			tenant := ownBao(t).tenant(t)
			tenant.bao.must(t, "PUT", "sys/seal", nil)
			return tenant.Flags(), tenant.SecretID
		}},
		{"nobody listens", "keeper-unreachable", "refused", func(t *testing.T) ([]string, string) {
			tenant := sharedBao(t).tenant(t)
			return tenant.FlagsVia(newForwarder(t, "").address), tenant.SecretID
		}},
		{"unknown authority", "keeper-unreachable", "certificate", func(t *testing.T) ([]string, string) {
			tenant := sharedBao(t).tenant(t)
			return append(tenant.Flags(), "--tls-ca-file="+foreignAuthority(t)), tenant.SecretID
		}},
		{"wrong secret id", "login-refused", "secret ID", func(t *testing.T) ([]string, string) {
			tenant := sharedBao(t).tenant(t)
			const wrong = "00000000-4711-4711-4711-000000000000"
			must(t, tenant.WriteSecretID(wrong))
			return tenant.Flags(), wrong
		}},
		{"no secret id", "credential-unreadable", "approle-secret-id-path", func(t *testing.T) ([]string, string) {
			tenant := sharedBao(t).tenant(t)
			if err := os.Remove(tenant.SecretIDFile); err != nil {
				t.Fatal(err)
			}
			return tenant.Flags(), tenant.SecretID
		}},
		{"over a quota", "keeper-overloaded", "quota", func(t *testing.T) ([]string, string) {
			tenant := sharedBao(t).tenant(t)
			quota := "sys/quotas/rate-limit/" + tenant.Key
			tenant.bao.must(t, "POST", quota, map[string]any{
				"path": "transit/keys/" + tenant.Key, "rate": 1, "interval": "1h",
			})
			t.Cleanup(func() { tenant.bao.must(t, "DELETE", quota, nil) })
			// These requests use up the quota.
			tenant.bao.must(t, "GET", "transit/keys/"+tenant.Key, nil)
			return tenant.Flags(), tenant.SecretID
		}},
		{"no key", "key-missing", "no key", func(t *testing.T) ([]string, string) {
			role := sharedBao(t).role(t, "read keys", "update encrypt", "update decrypt")
			return role.Flags(), role.SecretID
		}},
		{"may not read", "permission-denied", "reading", func(t *testing.T) ([]string, string) {
			return keyWith(t, "update encrypt", "update decrypt")
		}},
		{"may not encrypt", "permission-denied", "encrypting", func(t *testing.T) ([]string, string) {
			return keyWith(t, "read keys", "update decrypt")
		}},
		{"may not decrypt", "permission-denied", "decrypting", func(t *testing.T) ([]string, string) {
			return keyWith(t, "read keys", "update encrypt")
		}},
	}
	var seen sync.Map
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			flags, secretID := c.flags(t)
			p := launch(t, newEndpoint(t), flags)
			p.waitAccepts(t)
			client := p.client(t)
			var text string
			if !parts.Eventually(startBound, func() bool {
				asked := parts.StartWatch()
				answer, err := client.Status(t.Context())
				if text = message(err); err == nil {
					t.Fatalf("Status answers %v", answer)
				}
				if asked.Calm() > statusBound {
					t.Errorf("Status took %v", asked)
				}
				return !strings.HasPrefix(text, "starting: ") && !strings.HasPrefix(text, "proof-pending: ")
			}) {
				t.Fatalf("Status names no cause in time: %s", text)
			}
			t.Log(text)
			if !strings.HasPrefix(text, c.code+": ") || !strings.Contains(text, c.cause) {
				t.Errorf("%q; expected %s and %q", text, c.code, c.cause)
			}
			requireOneLine(t, text)
			if strings.Contains(text, secretID) || tokenShape.MatchString(text) {
				t.Errorf("a credential is in %q", text)
			}
			if other, double := seen.LoadOrStore(text, c.name); double {
				t.Errorf("the same text %q is reported for %q too", text, other)
			}
		})
	}
}

// keyWith makes a key and a role with exactly these rights to it.
func keyWith(t *testing.T, grants ...string) (flags []string, secretID string) {
	t.Helper()
	b := sharedBao(t)
	role := b.role(t, grants...)
	b.must(t, "POST", "transit/keys/"+role.Key, map[string]any{"type": "aes256-gcm96"})
	return role.Flags(), role.SecretID
}

// foreignAuthority returns a CA file of an authority that no OpenBao uses.
func foreignAuthority(t *testing.T) string {
	t.Helper()
	server := httptest.NewTLSServer(nil)
	defer server.Close()
	file := filepath.Join(shortDir(t), "ca.pem")
	block := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})
	if err := os.WriteFile(file, block, 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

func requireOneLine(t *testing.T, text string) {
	t.Helper()
	if text == "" || strings.ContainsFunc(text, func(r rune) bool { return r < ' ' }) {
		t.Errorf("more than one line: %q", text)
	}
}
