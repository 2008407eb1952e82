package apiserver_test

import (
	"bytes"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"k8s.io/kms/pkg/service"

	"vault-kube-kms.test/parts"
)

// reading decrypts one object again and again, and counts failures and wrong plaintexts.
type reading struct {
	done, failed, wrong atomic.Int32
	last                atomic.Value
	stop, stopped       chan struct{}
}

func readAllTheTime(t *testing.T, client service.Service, one stored) *reading {
	t.Helper()
	r := &reading{stop: make(chan struct{}), stopped: make(chan struct{})}
	go func() {
		defer close(r.stopped)
		for {
			select {
			case <-r.stop:
				return
			case <-time.After(5 * time.Millisecond):
			}
			opened, err := client.Decrypt(t.Context(), "all the time", asStored(one.sealed))
			r.done.Add(1)
			switch {
			case err != nil && t.Context().Err() == nil:
				r.failed.Add(1)
				r.last.Store(message(err))
			case err == nil && !bytes.Equal(opened, one.plaintext):
				r.wrong.Add(1)
			}
		}
	}()
	t.Cleanup(r.end)
	return r
}

func (r *reading) end() {
	select {
	case <-r.stop:
	default:
		close(r.stop)
	}
	<-r.stopped
}

// requireFailures ends it. It requires at most this number of failures and no wrong plaintext.
func (r *reading) requireFailures(t *testing.T, most int32) {
	t.Helper()
	r.end()
	t.Logf("%d unwraps, %d failed", r.done.Load(), r.failed.Load())
	if r.wrong.Load() > 0 || r.failed.Load() > most || r.done.Load() == 0 {
		t.Errorf("%d of %d failed, %d were wrong: %v", r.failed.Load(), r.done.Load(), r.wrong.Load(), r.last.Load())
	}
}

// withRole changes the role of a tenant.
func (n *tenant) withRole(t *testing.T, settings map[string]any) {
	t.Helper()
	must(t, n.MakeRole(settings))
}

// TestChecklist53_EveryKindOfToken expects that each kind of token is renewed or replaced in time, so that no
// call fails.
func TestChecklist53_EveryKindOfToken(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		role map[string]any
		// The event that keeps the session valid, and its minimum number.
		by    string
		times float64
	}{
		"short":             {map[string]any{"token_ttl": "5s", "token_max_ttl": "10s"}, "logins", 2},
		"periodic":          {map[string]any{"token_period": "5s", "token_ttl": 0, "token_max_ttl": 0}, "renewals", 3},
		"batch":             {map[string]any{"token_type": "batch", "token_ttl": "5s", "token_max_ttl": "5s"}, "logins", 3},
		"no default policy": {map[string]any{"token_no_default_policy": true, "token_ttl": "5s", "token_max_ttl": "60s"}, "logins", 3},
		"very long":         {map[string]any{"token_ttl": 0, "token_max_ttl": 0}, "logins", 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			n := sharedBao(t).tenant(t)
			n.withRole(t, c.role)
			p, metrics := metered(t, n.Flags())
			client := p.client(t)
			began := time.Now()
			read := readAllTheTime(t, client, store(t, client))
			if !parts.EventuallyEvery(200*time.Millisecond, time.Minute, func() bool {
				times, _ := counted(t, metrics, "vault_kube_kms_"+c.by+"_total")
				return times >= c.times && time.Since(began) > 10*time.Second
			}) {
				t.Errorf("it does not come to %v %s", c.times, c.by)
			}
			read.requireFailures(t, 0)
			// No token lives for less than five seconds.
			most := 4 + time.Since(began).Seconds()/2
			if logins, _ := counted(t, metrics, "vault_kube_kms_logins_total"); logins > most {
				t.Errorf("%v logins", logins)
			}
			if left, found := counted(t, metrics, "vault_kube_kms_token_left_seconds"); !found || left <= 0 {
				t.Errorf("%v seconds are left of the token", left)
			}
			p.requireHealthy(t)
		})
	}
}

func TestChecklist53_ATokenOfFewUsesIsRefusedWithTheReason(t *testing.T) {
	t.Parallel()
	n := sharedBao(t).tenant(t)
	n.withRole(t, map[string]any{"token_num_uses": 5, "token_ttl": "60s"})
	p := launch(t, newEndpoint(t), n.Flags())
	p.waitAccepts(t)
	client := p.client(t)
	requireStatusSays(t, client, "token_num_uses=0")
	n.withRole(t, map[string]any{"token_num_uses": 0, "token_ttl": "60s"})
	// The secret ID was not refused, and nothing else has changed.
	must(t, n.WriteSecretID(n.newSecretID(t)))
	p.waitHealthy(t)
}

// TestChecklist53_ARevokedTokenIsReplacedAtOnce expects that one login replaces a revoked token, and that no call
// fails.
func TestChecklist53_ARevokedTokenIsReplacedAtOnce(t *testing.T) {
	t.Parallel()
	n := sharedBao(t).tenant(t)
	p, metrics := metered(t, n.Flags())
	client := p.client(t)
	read := readAllTheTime(t, client, store(t, client))
	logins := func() float64 { count, _ := counted(t, metrics, "vault_kube_kms_logins_total"); return count }
	// A token that is refused soon after its login is replaced only after a pause.
	time.Sleep(12 * time.Second)
	n.revokeTokens(t)
	if !parts.Eventually(5*time.Second, func() bool { return logins() == 2 }) {
		t.Errorf("%v logins", logins())
	}
	read.requireFailures(t, 0)
	if logins() != 2 {
		t.Errorf("%v logins for one dead token", logins())
	}
}

// TestChecklist53_NoLoginIsPossible expects that Status names the refused login and the remedy, and that a new
// secret ID ends the fault at once.
func TestChecklist53_NoLoginIsPossible(t *testing.T) {
	t.Parallel()
	n := sharedBao(t).tenant(t)
	p, metrics := metered(t, n.Flags())
	client := p.client(t)
	one := store(t, client)
	n.bao.must(t, "DELETE", "auth/approle/role/"+n.Key, nil)
	n.revokeTokens(t)
	requireStatusSays(t, client, "login-refused")
	refused, _ := counted(t, metrics, "vso_client_operations_errors_total", `operation="login"`)

	n.withRole(t, map[string]any{"role_id": n.RoleID, "token_ttl": "60s"})
	// The same secret ID is not tried again, although the file was written.
	must(t, n.WriteSecretID(n.SecretID))
	time.Sleep(3 * time.Second)
	if again, _ := counted(t, metrics, "vso_client_operations_errors_total", `operation="login"`); again != refused {
		t.Errorf("a refused secret ID was tried %v more times", again-refused)
	}
	written := time.Now()
	must(t, n.WriteSecretID(n.newSecretID(t)))
	if !parts.Eventually(10*time.Second, func() bool {
		answer, err := client.Status(t.Context())
		return err == nil && answer.Healthz == "ok"
	}) {
		t.Error("a new secret ID does not end the fault")
	}
	t.Logf("healthy %v after the new secret ID was written", time.Since(written).Round(time.Second/10))
	requireOpens(t, client, one.sealed, one.plaintext)
}

// TestASecretIDIsReplacedWithoutARestart replaces the file of the secret ID in each usual way, during calls.
func TestASecretIDIsReplacedWithoutARestart(t *testing.T) {
	t.Parallel()
	n := sharedBao(t).tenant(t)
	n.withRole(t, map[string]any{"token_ttl": "5s", "token_max_ttl": "5s"})
	p, metrics := metered(t, n.Flags())
	client := p.client(t)
	read := readAllTheTime(t, client, store(t, client))
	for range 3 {
		former := n.SecretID
		n.SecretID = n.newSecretID(t)
		must(t, n.WriteSecretID(n.SecretID))
		n.bao.must(t, "POST", "auth/approle/role/"+n.Key+"/secret-id/destroy", map[string]any{"secret_id": former})
		requireMoreLogins(t, metrics, 1)
	}
	read.requireFailures(t, 0)
	if refused, _ := counted(t, metrics, "vso_client_operations_errors_total", `operation="login"`); refused != 0 {
		t.Errorf("%v logins were refused", refused)
	}
}

// requireMoreLogins waits for this number of further logins.
func requireMoreLogins(t *testing.T, metrics string, more float64) {
	t.Helper()
	before, _ := counted(t, metrics, "vault_kube_kms_logins_total")
	if !parts.EventuallyEvery(100*time.Millisecond, startBound, func() bool {
		now, _ := counted(t, metrics, "vault_kube_kms_logins_total")
		return now >= before+more
	}) {
		t.Errorf("%v more logins do not come", more)
	}
}

func (n *tenant) newSecretID(t *testing.T) string {
	t.Helper()
	secretID, err := n.NewSecretID()
	must(t, err)
	return secretID
}

// revokeTokens revokes all tokens of the tenant's role.
func (n *tenant) revokeTokens(t *testing.T) {
	t.Helper()
	_, err := n.RevokeTokens()
	must(t, err)
}

// requireStatusSays waits until Status fails with this text.
func requireStatusSays(t *testing.T, client service.Service, text string) {
	t.Helper()
	var last string
	if !parts.Eventually(startBound, func() bool {
		_, err := client.Status(t.Context())
		if err != nil {
			last = message(err)
		}
		return strings.Contains(last, text)
	}) {
		t.Errorf("Status does not say %q but %q", text, last)
	}
}
