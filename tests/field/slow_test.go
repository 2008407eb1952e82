package field_test

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"vault-kube-kms.test/parts"
	"vault-kube-kms.test/suite"
)

// late delays requests at the front, and sends them to OpenBao even after their client has gone. Such a login
// still makes a token.
func late(delay time.Duration, to func(*http.Request) bool) func(http.ResponseWriter, *http.Request) bool {
	return func(_ http.ResponseWriter, r *http.Request) bool {
		if to(r) {
			<-time.After(delay)
			*r = *r.WithContext(context.WithoutCancel(r.Context()))
		}
		return false
	}
}

// tokensOf returns the number of tokens of a tenant's role.
func tokensOf(t *testing.T, n *parts.Tenant) (count int) {
	t.Helper()
	accessors := ask(t, n.Bao, "LIST", "auth/token/accessors", nil)
	keys, _ := accessors["keys"].([]any)
	for _, accessor := range keys {
		about, err := n.Bao.Ask("POST", "auth/token/lookup-accessor", map[string]any{"accessor": accessor})
		// The token may have expired since the list was read.
		if err != nil {
			continue
		}
		meta, _ := about["meta"].(map[string]any)
		if meta["role_name"] == n.Key {
			count++
		}
	}
	return count
}

// TestSlowLogin expects that a login of four seconds succeeds at the first try, and that no second token remains.
func TestSlowLogin(t *testing.T) {
	t.Parallel()
	n := newTenant(t)
	must(t, n.MakeRole(map[string]any{"token_ttl": "10m", "token_max_ttl": "10m"}))
	f := newFrontAs(t, n.Bao, suite.Front{Answer: late(4*time.Second, isLogin)})
	p := launch(t, f.flags(n))
	if p.waitHealthy(t, "after the start, with logins that take 4 s", startBound) {
		if asked := f.asked.Load(); asked != 1 {
			t.Errorf("%d logins for one session", asked)
		}
	}
	if tokens := tokensOf(t, n); tokens > 1 {
		t.Errorf("%d tokens are left", tokens)
	}
	if !p.Stop() {
		t.Error("the plugin did not end on SIGTERM")
	}
	if tokens := tokensOf(t, n); tokens != 0 {
		t.Errorf("%d tokens are left after the stop", tokens)
	}
}

// TestStopDuringALogin expects that no token remains of a login that is answered after SIGTERM.
func TestStopDuringALogin(t *testing.T) {
	t.Parallel()
	n := newTenant(t)
	f := newFrontAs(t, n.Bao, suite.Front{Answer: late(300*time.Millisecond, isLogin)})
	p := launch(t, f.flags(n))
	if !parts.Eventually(startBound, func() bool { return f.asked.Load() > 0 }) {
		t.Fatal("no login begins")
	}
	if !p.Stop() || p.ExitCode() != 0 {
		t.Errorf("it ends with %d", p.ExitCode())
	}
	// The token of a request that the front held when the plugin ended would come later.
	if parts.Eventually(3*time.Second, func() bool { return tokensOf(t, n) != 0 }) {
		t.Error("a token is left")
	}
}

// TestCheckWithASlowLogin expects that `check` waits for a login as long as `serve` does.
func TestCheckWithASlowLogin(t *testing.T) {
	t.Parallel()
	n := newTenant(t)
	f := newFrontAs(t, n.Bao, suite.Front{Answer: late(10*time.Second, isLogin)})
	printed, code := check(t, append(f.flags(n), "--listen-address=unix://"+shortDir(t)+"/kms.sock"))
	if code != 0 {
		t.Errorf("it exits with %d and prints\n%s", code, printed)
	}
}

// TestSlowRenewal expects that a renewal of four seconds succeeds and no login follows, also when the time
// could be shared by eight endpoints.
func TestSlowRenewal(t *testing.T) {
	t.Parallel()
	for _, endpoints := range []int{1, 8} {
		t.Run(fmt.Sprint(endpoints), func(t *testing.T) {
			t.Parallel()
			n := newTenant(t)
			must(t, n.MakeRole(map[string]any{"token_ttl": "60s", "token_max_ttl": "10m"}))
			isRenewal := func(r *http.Request) bool { return strings.HasSuffix(r.URL.Path, "/renew-self") }
			var fronts []*front
			var addresses []string
			var authorities []byte
			for range endpoints {
				f := newFrontAs(t, n.Bao, suite.Front{Answer: late(4*time.Second, isRenewal)})
				fronts, addresses = append(fronts, f), append(addresses, f.Address)
				authorities = append(authorities, readFile(t, f.CAFile)...)
			}
			bundle := filepath.Join(t.TempDir(), "ca.pem")
			must(t, os.WriteFile(bundle, authorities, 0o600))
			p := start(t, append(n.FlagsVia(addresses...), "--tls-ca-file="+bundle))
			renewed := func() bool {
				if err := p.worksDespiteLoad(t.Context()); err != nil {
					t.Fatalf("a call fails: %v", err)
				}
				_, text := p.get(p.inside + "/metrics")
				count, _ := parts.Metrics(text).Sum("vault_kube_kms_renewals_total")
				return count >= 1
			}
			if !parts.EventuallyEvery(200*time.Millisecond, 90*time.Second, renewed) {
				t.Error("no renewal has succeeded")
			}
			var asked int64
			for _, f := range fronts {
				asked += int64(f.asked.Load())
			}
			if asked != 1 {
				t.Errorf("%d logins", asked)
			}
		})
	}
}

// TestLoginThatIsNeverAnswered expects an error that names the flag of the time limit, and a recovery as soon as
// the keeper answers.
func TestLoginThatIsNeverAnswered(t *testing.T) {
	t.Parallel()
	n := newTenant(t)
	answers := make(chan struct{})
	f := newFrontAs(t, n.Bao, suite.Front{Answer: func(_ http.ResponseWriter, r *http.Request) bool {
		if isLogin(r) {
			select {
			case <-answers:
			case <-r.Context().Done():
			}
		}
		return false
	}})
	p := launch(t, f.flags(n))
	p.waitTold(t, 45*time.Second, `--[a-z]+-[a-z-]*timeout|--[a-z-]*login[a-z-]*`)
	close(answers)
	p.waitHealthy(t, "after logins are answered", outageBound+slack)
	p.requireNeverTold(t, blames...)
}
