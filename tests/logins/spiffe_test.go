package logins_test

import (
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"vault-kube-kms.test/parts"
	"vault-kube-kms.test/suite"
)

// agentBound is the longest time until an agent that is there again is asked, after its own start.
const agentBound = 8 * time.Second

// spire is the SPIRE server of all tests.
var spire = suite.Shared[*parts.Spire]{Variable: "SPIRE", Start: parts.StartSpire}

// workload is a login with an identity of an agent of its own.
type workload struct {
	*login
	agent *parts.SpireAgent
	entry string
}

// newWorkload prepares an agent, which is not started, and an auth mount that trusts the SPIRE server.
func newWorkload(t *testing.T, svid string) *workload {
	n, server := newTenant(t), spire.Use(t)
	agent, err := server.NewAgent(shortDir(t))
	must(t, err)
	t.Cleanup(func() {
		if agent.Process == nil {
			return
		}
		agent.Kill()
		if t.Failed() {
			t.Logf("the agent printed:\n%s", parts.Tail(agent.Printed()))
		}
	})
	w := &workload{agent: agent}
	w.makeEntry(t, 60, 60)
	mount := "spiffe-" + n.Key
	w.login = &login{
		tenant: n, place: "auth/" + mount + " (spiffe)", noRole: "has no such role",
		flags: []string{
			"--auth-method=spiffe", "--auth-mount=" + mount, "--spiffe-socket=unix://" + agent.Socket,
			"--spiffe-role=kms", "--spiffe-svid=" + svid,
		},
		good: func(*testing.T) string { return "" },
	}
	role, settings := w.trust(t, svid, mount)
	w.login.makeRole = func(t *testing.T, seconds int) {
		settings["token_ttl"], settings["token_max_ttl"] = seconds, 2*seconds
		ask(t, n.Bao, "POST", role, settings)
	}
	w.login.deleteRole = func(t *testing.T) { ask(t, n.Bao, "DELETE", role, nil) }
	return w
}

// trust makes the auth mount, and returns the path of its role and the role's settings.
func (w *workload) trust(t *testing.T, svid, mount string) (role string, settings map[string]any) {
	n, server := w.tenant, spire.Use(t)
	if svid == "x509" {
		bundle, err := server.X509Bundle()
		must(t, err)
		ask(t, n.Bao, "POST", "sys/auth/"+mount, map[string]any{"type": "cert"})
		w.noRole = "does not accept the X.509-SVID"
		return "auth/" + mount + "/certs/kms", map[string]any{
			"certificate": bundle, "allowed_uri_sans": "spiffe://example.org/kms", "token_policies": n.Key,
		}
	}
	w.flags = append(w.flags, "--spiffe-audience=vault")
	keys, err := server.JWTKeys()
	must(t, err)
	ask(t, n.Bao, "POST", "sys/auth/"+mount, map[string]any{"type": "jwt"})
	ask(t, n.Bao, "POST", "auth/"+mount+"/config", map[string]any{"jwt_validation_pubkeys": keys})
	return "auth/" + mount + "/role/kms", map[string]any{
		"role_type": "jwt", "user_claim": "sub", "bound_audiences": []string{"vault"},
		"bound_subject": "spiffe://example.org/kms", "token_policies": n.Key,
	}
}

// makeEntry makes the registration entry of the plugin, with lifetimes in seconds.
func (w *workload) makeEntry(t *testing.T, x509, jwt int) {
	t.Helper()
	var err error
	w.entry, err = w.agent.MakeEntry("/kms", x509, jwt)
	must(t, err)
}

// spiffe has an agent that serves.
func spiffe(svid string) func(t *testing.T) *login {
	return func(t *testing.T) *login {
		w := newWorkload(t, svid)
		must(t, w.agent.Start())
		return w.login
	}
}

// revoke ends the token of the plugin, so that it has to log in.
func (w *workload) revoke(t *testing.T) {
	t.Helper()
	_, err := w.tenant.RevokeTokens()
	must(t, err)
}

// The agent is not there when the plugin starts. Later it is killed, and started again on the same path.
func TestSpiffeAgentIsAway(t *testing.T) {
	t.Parallel()
	w := newWorkload(t, "jwt")
	w.makeRole(t, 600)
	p := start(t, w.allFlags(w.tenant.Bao.Address))
	p.untilTold(t, "has no socket there")
	if printed := p.check(t); !strings.Contains(printed, "has no socket there; start the agent") {
		t.Errorf("check prints:\n%s", printed)
	}
	must(t, w.agent.Start())
	p.untilWorks(t, "agent started", agentBound)
	if printed := p.check(t); strings.Contains(printed, "FAIL") || !strings.Contains(printed, "gives a JWT-SVID") {
		t.Errorf("check prints:\n%s", printed)
	}
	w.agent.Kill()
	// The token is still valid.
	must(t, p.works(t.Context()))
	w.revoke(t)
	p.untilTold(t, "its socket refuses connections")
	must(t, w.agent.Start())
	p.untilWorks(t, "agent restarted", agentBound)
}

// The agent hangs, and goes on.
func TestSpiffeAgentHangs(t *testing.T) {
	t.Parallel()
	w := newWorkload(t, "jwt")
	w.makeRole(t, 600)
	must(t, w.agent.Start())
	p := start(t, w.allFlags(w.tenant.Bao.Address))
	p.untilWorks(t, "start", startBound)
	w.agent.Signal(syscall.SIGSTOP)
	w.revoke(t)
	p.untilTold(t, "does not answer within 10 s")
	w.agent.Signal(syscall.SIGCONT)
	p.untilWorks(t, "agent goes on", agentBound)
}

// The registration entry is deleted, and made again.
func TestSpiffeEntryIsDeletedAndMadeAgain(t *testing.T) {
	t.Parallel()
	w := newWorkload(t, "jwt")
	w.makeRole(t, 600)
	must(t, w.agent.Start())
	p := start(t, w.allFlags(w.tenant.Bao.Address))
	p.untilWorks(t, "start", startBound)
	must(t, w.agent.DeleteEntry(w.entry))
	// The agent learns of it within some seconds, and gives JWT-SVIDs until then.
	told := parts.EventuallyEvery(500*time.Millisecond, startBound, func() bool {
		w.revoke(t)
		err := p.works(t.Context())
		return err != nil && strings.Contains(err.Error(), "has no identity for this process")
	})
	if !told {
		t.Fatal("Status does not tell that there is no identity")
	}
	uid := fmt.Sprintf("unix:uid:%d", os.Getuid())
	if printed := p.check(t); !strings.Contains(printed, uid) {
		t.Errorf("check prints:\n%s", printed)
	}
	w.makeEntry(t, 60, 60)
	p.untilWorks(t, "entry made again", agentBound)
}

// SVIDs of a few seconds and tokens of a few seconds: nothing fails meanwhile.
func TestSpiffeRotation(t *testing.T) {
	t.Parallel()
	for _, svid := range []string{"jwt", "x509"} {
		t.Run(svid, func(t *testing.T) {
			t.Parallel()
			w := newWorkload(t, svid)
			must(t, w.agent.DeleteEntry(w.entry))
			w.makeEntry(t, 20, 10)
			w.makeRole(t, 4)
			must(t, w.agent.Start())
			p := start(t, w.allFlags(w.tenant.Bao.Address))
			p.untilWorks(t, "start", startBound)
			const logins = `vso_client_operations_total`
			first := p.counted(t, logins, `operation="login"`)
			if !parts.EventuallyEvery(100*time.Millisecond, 90*time.Second, func() bool {
				if err := p.works(t.Context()); err != nil {
					t.Errorf("a call failed: %v", err)
				}
				return p.counted(t, logins, `operation="login"`) >= first+6
			}) {
				t.Fatal("the logins do not follow each other")
			}
			// A renewal at the end of the longest life may be refused: a login follows.
			for _, code := range []string{"login-refused", "credential-unreadable"} {
				if failed := p.counted(t, "vault_kube_kms_session_failures_total", `code="`+code+`"`); failed != 0 {
					t.Errorf("%v logins failed with %s", failed, code)
				}
			}
		})
	}
}

// The agent starts after the plugin. Its X.509-SVID serves for logins while the agent is away, until it ends.
func TestSpiffeCertificateOutlivesTheAgent(t *testing.T) {
	t.Parallel()
	w := newWorkload(t, "x509")
	must(t, w.agent.DeleteEntry(w.entry))
	w.makeEntry(t, 30, 30)
	w.makeRole(t, 4)
	p := start(t, w.allFlags(w.tenant.Bao.Address))
	p.untilTold(t, "has no socket there")
	must(t, w.agent.Start())
	p.untilWorks(t, "agent started", agentBound)
	if printed := p.check(t); strings.Contains(printed, "FAIL") || !strings.Contains(printed, "gives an X.509-SVID") {
		t.Errorf("check prints:\n%s", printed)
	}
	w.agent.Kill()
	w.revoke(t)
	p.untilWorks(t, "token revoked without the agent", fileBound)
	told := parts.EventuallyEvery(time.Second, 60*time.Second, func() bool {
		err := p.works(t.Context())
		return err != nil && strings.Contains(err.Error(), "and the agent sends no new one")
	})
	if !told {
		t.Fatal("Status does not tell that the X.509-SVID has expired")
	}
	must(t, w.agent.Start())
	p.untilWorks(t, "agent restarted", refusalBound)
}
