package logins_test

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"vault-kube-kms.test/parts"
)

// ofAgents are the methods without a credential file.
var ofAgents = []string{"spiffe jwt", "spiffe x509"}

// each runs a test for each method to which it applies.
func each(t *testing.T, test func(t *testing.T, l *login), except ...string) {
	t.Parallel()
	for name, setUp := range methods {
		if slices.Contains(except, name) {
			continue
		}
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(t, setUp(t))
		})
	}
}

// The server cannot be reached at the start.
func TestServerAwayAtTheStart(t *testing.T) {
	each(t, func(t *testing.T, l *login) {
		l.makeRole(t, 60)
		l.write(t, l.good(t))
		d := door{parts.FreeAddress()}
		p := start(t, l.allFlags(d.address))
		p.untilTold(t, "refused")
		d.open(t, l.tenant.Bao.Address)
		p.untilWorks(t, "server away", outageBound)
	})
}

// The file of the credential comes after the start.
func TestCredentialMissingAtTheStart(t *testing.T) {
	each(t, func(t *testing.T, l *login) {
		l.makeRole(t, 60)
		_ = os.Remove(l.file)
		p := start(t, l.allFlags(l.tenant.Bao.Address))
		p.untilTold(t, l.file)
		l.write(t, l.good(t))
		p.untilWorks(t, "credential missing", fileBound)
	}, ofAgents...)
}

// The authorities of the system serve for connections with a certificate that comes after the start, too.
// The sandbox does not let the plugin read them again.
func TestCertificateComesLaterWithSystemAuthorities(t *testing.T) {
	t.Parallel()
	startWith := func(t *testing.T, l *login) *plugin {
		l.makeRole(t, 60)
		flags := slices.DeleteFunc(l.allFlags(l.tenant.Bao.Address), func(flag string) bool {
			return strings.HasPrefix(flag, "--tls-ca-file=")
		})
		return start(t, flags, "SSL_CERT_FILE="+l.tenant.Bao.CAFile)
	}
	t.Run("cert", func(t *testing.T) {
		t.Parallel()
		l := cert(t)
		p := startWith(t, l)
		p.untilTold(t, l.file)
		for _, what := range []string{"certificate missing", "certificate replaced"} {
			l.write(t, l.good(t))
			_, err := l.tenant.RevokeTokens()
			must(t, err)
			p.untilWorks(t, what, fileBound)
		}
		if printed := p.Printed(); strings.Contains(printed, "still uses the previous") {
			t.Errorf("the certificate is not used: %s", parts.Tail(printed))
		}
	})
	t.Run("spiffe x509", func(t *testing.T) {
		t.Parallel()
		w := newWorkload(t, "x509")
		p := startWith(t, w.login)
		p.untilTold(t, "has no socket there")
		must(t, w.agent.Start())
		p.untilWorks(t, "agent started", agentBound)
	})
}

// A valid token whose policies do not let it look itself up is not called a token that has expired.
func TestTokenMayNotLookItselfUp(t *testing.T) {
	t.Parallel()
	l := tokenFile(t)
	n := l.tenant
	token, err := n.Bao.NewToken(map[string]any{"policies": []string{n.Key}, "no_default_policy": true})
	must(t, err)
	l.write(t, token)
	p := start(t, l.allFlags(n.Bao.Address))
	p.untilTold(t, "may not look itself up")
	l.write(t, l.good(t))
	p.untilWorks(t, "token with the policy default", fileBound)
}

// The server refuses the credential, and a good one takes its place in each way that a file is replaced.
func TestRefusedCredentialIsReplaced(t *testing.T) {
	ways := map[string]func(t *testing.T, file, credential string){
		"truncated and written": func(t *testing.T, file, credential string) {
			must(t, os.WriteFile(file, []byte(credential), 0o600))
		},
		"renamed": func(t *testing.T, file, credential string) {
			must(t, os.WriteFile(file+".new", []byte(credential), 0o600))
			must(t, os.Rename(file+".new", file))
		},
		"symlink farm": func(t *testing.T, file, credential string) {
			dir := filepath.Dir(file)
			version := filepath.Join(dir, "..2026")
			must(t, os.Mkdir(version, 0o700))
			must(t, os.WriteFile(filepath.Join(version, "credential"), []byte(credential), 0o600))
			must(t, os.Symlink(filepath.Base(version), filepath.Join(dir, "..data.new")))
			must(t, os.Rename(filepath.Join(dir, "..data.new"), filepath.Join(dir, "..data")))
			must(t, os.Symlink("..data/credential", file+".new"))
			must(t, os.Rename(file+".new", file))
		},
	}
	t.Parallel()
	for way, replace := range ways {
		t.Run(way, func(t *testing.T) {
			each(t, func(t *testing.T, l *login) {
				l.makeRole(t, 60)
				bad := l.bad(t)
				l.write(t, bad)
				p := start(t, l.allFlags(l.tenant.Bao.Address))
				p.untilTold(t, l.told)
				told := p.check(t)
				if !strings.Contains(told, l.told[:20]) || !strings.Contains(told, "FAIL") {
					t.Errorf("check prints:\n%s", told)
				}
				replace(t, l.file, l.good(t))
				p.untilWorks(t, "refused", fileBound)
				for _, text := range []string{p.Printed(), p.statusz(t), told} {
					if strings.Contains(text, bad) {
						t.Error("the credential is printed")
					}
				}
				if !strings.Contains(p.statusz(t), l.place) {
					t.Errorf("the status page does not name the login %s:\n%s", l.place, p.statusz(t))
				}
				if printed := p.check(t); strings.Contains(printed, "FAIL") || !strings.Contains(printed, l.place) {
					t.Errorf("check prints:\n%s", printed)
				}
			}, ofAgents...)
		})
	}
}

// All tokens of the role are revoked. A token of another program is replaced in its file.
func TestTokenIsRevoked(t *testing.T) {
	each(t, func(t *testing.T, l *login) {
		l.makeRole(t, 600)
		l.write(t, l.good(t))
		p := start(t, l.allFlags(l.tenant.Bao.Address))
		p.untilWorks(t, "start", startBound)
		_, err := l.tenant.RevokeTokens()
		must(t, err)
		if l.deleteRole == nil {
			p.untilTold(t, l.told)
			l.write(t, l.good(t))
		}
		p.untilWorks(t, "token revoked", fileBound)
	})
}

// The role is deleted and its tokens are revoked. Later the role is made again.
func TestRoleIsDeletedAndMadeAgain(t *testing.T) {
	each(t, func(t *testing.T, l *login) {
		l.makeRole(t, 600)
		l.write(t, l.good(t))
		p := start(t, l.allFlags(l.tenant.Bao.Address))
		p.untilWorks(t, "start", startBound)
		l.deleteRole(t)
		_, err := l.tenant.RevokeTokens()
		must(t, err)
		p.untilTold(t, l.noRole)
		l.makeRole(t, 600)
		// A secret ID ends with its role. Other credentials stay valid.
		bound := refusalBound
		if l.endsWithRole {
			l.write(t, l.good(t))
			bound = fileBound
		}
		p.untilWorks(t, "role made again", bound)
	}, "token-file")
}

// The credential is replaced while the plugin works, and nothing fails.
func TestCredentialIsReplacedInTime(t *testing.T) {
	each(t, func(t *testing.T, l *login) {
		l.makeRole(t, 6)
		l.write(t, l.good(t))
		p := start(t, l.allFlags(l.tenant.Bao.Address))
		p.untilWorks(t, "start", startBound)
		const logins = `vso_client_operations_total`
		for range 2 {
			before := p.counted(t, logins, `operation="login"`)
			l.write(t, l.good(t))
			if !parts.EventuallyEvery(100*time.Millisecond, 30*time.Second, func() bool {
				if err := p.works(t.Context()); err != nil {
					t.Errorf("a call failed: %v", err)
				}
				return p.counted(t, logins, `operation="login"`) > before
			}) {
				t.Fatal("no login follows")
			}
		}
		if failed := p.counted(t, "vault_kube_kms_session_failures_total"); failed != 0 {
			t.Errorf("%v logins or renewals failed", failed)
		}
	})
}
