package field_test

import (
	"net/http"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"k8s.io/kms/pkg/service"

	"vault-kube-kms.test/parts"
)

// foreignAnswer is an answer of another server in place of OpenBao. The plugin must treat it as an outage.
type foreignAnswer struct {
	answer answer
	// told has patterns of the cause. wrong has misleading causes and remedies.
	told, wrong []string
}

// blames are remedies for other causes: the key, the policy, the pair or a backup.
var blames = []string{
	"backup", "create it", "has no key", "grant ", "does not know this pair", "refused this pair", "locked after",
	"15 minutes", "write a new secret ID", "no mount at this path", "the mount does not exist", "revoked", "ALERT",
	"stolen", canary,
}

func pageTold(status string) []string { return []string{`\b` + status + `\b`, `text/html`} }

var foreignAnswers = map[string]foreignAnswer{
	"page_400": {page(400), pageTold("400"), nil},
	"page_403": {page(403), pageTold("403"), nil},
	"page_404": {page(404), pageTold("404"), nil},
	"page_502": {page(502), pageTold("502"), nil},
	"text_404_of_an_ingress": {
		answer{status: 404, contentType: "text/plain; charset=utf-8", body: "default backend - 404 " + canary},
		[]string{`\b404\b`, `text/plain`}, nil,
	},
	// JSON of a gateway, in another form than the keeper's.
	"json_403_of_a_gateway": {
		answer{status: 403, contentType: "application/json", body: `{"message":"Forbidden ` + canary + `"}`},
		[]string{`\b403\b`}, nil,
	},
	"page_of_a_single_sign_on": {page(200), pageTold("200"), nil},
	"dr_secondary": {
		refusal(400, "path disabled in replication DR secondary mode"),
		[]string{`(?i)disaster|\bDR\b|secondary|replication`}, nil,
	},
	"plain_http_to_a_tls_port": {
		answer{status: 400, contentType: "text/plain; charset=utf-8", body: "Client sent an HTTP request to an HTTPS server.\n"},
		[]string{`https://`, `(?i)plain|TLS`}, nil,
	},
	"redirected_to_https": {
		answer{status: 301, contentType: "text/html", body: canary, location: "https://vault.example.org:8200/v1/sys/health"},
		[]string{`vault\.example\.org`}, []string{"unknown reason"},
	},
	"audit_device_blocked": {
		refusal(500, "1 error occurred:\n\t* failed to audit request, cannot continue\n\n"),
		[]string{`keeper's log`}, nil,
	},
	// The longest time that 64 bits can hold.
	"quota_without_end": {
		refusal(429, `request path "auth/approle/login": rate limit quota exceeded`).after("18446744073709551615"),
		[]string{`quota`}, nil,
	},
	"page_429_without_end": {page(429).after("18446744073709551615"), pageTold("429"), nil},
	"page_503":             {page(503), pageTold("503"), nil},
	"sealed":               {refusal(503, "Vault is sealed"), []string{`sealed`, `unseal it`}, nil},
	"standby": {
		refusal(500, "local node not active but active cluster node not found"),
		[]string{`no active node`, `election`}, nil,
	},
	"dr_standby":          {refusal(472, ""), []string{`disaster-recovery secondary`, `promote it`}, nil},
	"performance_standby": {refusal(473, ""), []string{`performance standby`}, nil},
}

// trials maps an answer to the name of the trial that reported it.
func trials(names map[string]string) map[string]foreignAnswer {
	named := map[string]foreignAnswer{}
	for name, what := range foreignAnswers {
		if trial := names[name]; trial != "" {
			name = trial
		}
		named[name] = what
	}
	return named
}

// TestForeignAnswersToLogins gives the answers to logins, before the plugin was ever healthy.
func TestForeignAnswersToLogins(t *testing.T) {
	t.Parallel()
	for trial, what := range trials(map[string]string{
		"page_403": "login_403_of_a_proxy", "dr_secondary": "dr_secondary_promoted",
	}) {
		t.Run(trial, func(t *testing.T) {
			t.Parallel()
			n := newTenant(t)
			f := newFront(t, n.Bao)
			f.say(what.answer, isLogin)
			p := launch(t, f.flags(n))
			p.waitTold(t, startBound, what.told...)
			// The cause lasts for several tries, or for ten seconds if there is only one try.
			parts.Eventually(10*time.Second, func() bool { _ = p.status(t.Context()); return f.given.Load() >= 4 })
			p.notes()
			requireFinding(t, p.checks(t), what.told...)
			f.heal()
			p.waitHealthy(t, "after the keeper answers logins", outageBound+slack)
			p.requireNeverTold(t, slices.Concat(what.wrong, blames)...)
		})
	}
}

// TestForeignAnswersWhileRunning gives the answer to all requests while a session is open.
func TestForeignAnswersWhileRunning(t *testing.T) {
	t.Parallel()
	for trial, what := range trials(map[string]string{
		"page_403": "page_403_while_running", "text_404_of_an_ingress": "page_404_while_running",
		"dr_secondary": "dr_secondary_while_running",
	}) {
		t.Run(trial, func(t *testing.T) {
			t.Parallel()
			n := newTenant(t)
			f := newFront(t, n.Bao)
			p := start(t, f.flags(n))
			var sealed *service.EncryptResponse
			encrypt := func() (err error) { _, sealed, err = p.encrypt(t.Context()); return err }
			must(t, repeatOnTimeout(encrypt))
			decrypt := func() error { _, err := p.decrypt(t.Context(), sealed); return err }
			f.say(what.answer, isAny)
			requireOutage(t, "Decrypt", repeatOnTimeout(decrypt), what.told)
			requireOutage(t, "Encrypt", repeatOnTimeout(encrypt), what.told)
			p.waitTold(t, 2*startBound, what.told...)
			p.notes()
			requireFinding(t, p.checks(t), what.told...)
			f.heal()
			p.waitHealthy(t, "after the keeper answers", outageBound+slack)
			p.requireNeverTold(t, slices.Concat(what.wrong, blames)...)
		})
	}
}

// requireOutage requires that a call failed with the code of an outage and with the cause.
func requireOutage(t *testing.T, call string, err error, told []string) {
	t.Helper()
	if code := status.Code(err); code != codes.Unavailable && code != codes.DeadlineExceeded {
		t.Errorf("NOT AN OUTAGE: %s: %v", call, err)
	}
	requireTold(t, call+": "+status.Convert(err).Message(), told...)
}

// TestForeignAnswersToRenewals gives the answers to the renewal of a token. It expects that the token is used
// until it expires, and that a login follows.
func TestForeignAnswersToRenewals(t *testing.T) {
	t.Parallel()
	for name, what := range foreignAnswers {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			n := newTenant(t)
			must(t, n.MakeRole(map[string]any{"token_ttl": "8s", "token_max_ttl": "60s"}))
			f := newFront(t, n.Bao)
			p := start(t, f.flags(n))
			isRenewal := func(r *http.Request) bool { return strings.HasSuffix(r.URL.Path, "/renew-self") }
			f.say(what.answer, isRenewal)
			if !parts.Eventually(outageBound, func() bool {
				if err := p.worksDespiteLoad(t.Context()); err != nil {
					t.Fatalf("a call fails: %v", err)
				}
				return f.given.Load() >= 1 && f.asked.Load() >= 2
			}) {
				t.Errorf("%d answers to renewals, %d logins", f.given.Load(), f.asked.Load())
			}
			f.heal()
			p.waitHealthy(t, "after renewals are answered", outageBound)
			p.requireNeverTold(t, slices.Concat(what.wrong, blames)...)
		})
	}
}

// TestForeignAnswersToLoginsOfALiveSession gives pages to the logins that follow a token which cannot be renewed. It
// expects that no call fails while that token is valid.
func TestForeignAnswersToLoginsOfALiveSession(t *testing.T) {
	t.Parallel()
	for _, status := range []int{502, 503} {
		t.Run(strconv.Itoa(status), func(t *testing.T) {
			t.Parallel()
			n := newTenant(t)
			must(t, n.MakeRole(map[string]any{"token_type": "batch", "token_ttl": "24s", "token_max_ttl": "24s"}))
			f := newFront(t, n.Bao)
			p := start(t, f.flags(n))
			f.say(page(status), isLogin)
			// A call meanwhile would hide that the tries of a login count against the address.
			if !parts.Eventually(outageBound, func() bool { return f.given.Load() >= 4 }) {
				t.Fatalf("%d pages are given", f.given.Load())
			}
			if err := p.worksDespiteLoad(t.Context()); err != nil {
				t.Errorf("a call fails: %v", err)
			}
			f.heal()
			p.waitHealthy(t, "after logins are answered", outageBound)
			p.requireNeverTold(t, blames...)
		})
	}
}

// TestForeignAnswersToAWrappingToken gives a proxy's answer to the lookup of a wrapping token. It expects no
// ALERT, and that the token is used afterwards.
func TestForeignAnswersToAWrappingToken(t *testing.T) {
	t.Parallel()
	for name, what := range foreignAnswers {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			n := newTenant(t)
			token, err := n.Bao.Wrap("POST", rolePath(n)+"/secret-id", nil)
			must(t, err)
			must(t, n.WriteSecretID(token))
			f := newFront(t, n.Bao)
			isLookup := func(r *http.Request) bool { return strings.HasSuffix(r.URL.Path, "/wrapping/lookup") }
			f.say(what.answer, isLookup)
			p := launch(t, f.flags(n, "--approle-secret-id-wrapped"))
			p.waitTold(t, startBound, what.told...)
			p.notes()
			requireFinding(t, p.checks(t), what.told...)
			f.heal()
			p.waitHealthy(t, "after the keeper answers", outageBound+slack)
			p.requireNeverTold(t, slices.Concat(what.wrong, blames, []string{"wrapping-token-used"})...)
		})
	}
}
