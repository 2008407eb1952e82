package logins_test

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"vault-kube-kms.test/parts"
	"vault-kube-kms.test/suite"
)

// agent is OpenBao's agent. It logs in with AppRole and writes its token to the file of the method.
func agent(t *testing.T, l *login, sink string) *parts.Process {
	t.Helper()
	n, dir := l.tenant, shortDir(t)
	secretID, err := n.NewSecretID()
	must(t, err)
	must(t, os.WriteFile(filepath.Join(dir, "role-id"), []byte(n.RoleID), 0o600))
	must(t, os.WriteFile(filepath.Join(dir, "secret-id"), []byte(secretID), 0o600))
	config := filepath.Join(dir, "agent.hcl")
	must(t, os.WriteFile(config, fmt.Appendf(nil, `
		vault { address = "https://%s" ca_cert = %q }
		auto_auth {
			method "approle" {
				config = { role_id_file_path = "%s/role-id" secret_id_file_path = "%s/secret-id" }
			}
			sink "file" { %s config = { path = %q mode = 384 } }
		}`, n.Bao.Address, n.Bao.CAFile, dir, dir, sink, l.file), 0o600))
	process, err := parts.Way{}.Start("agent", []string{
		suite.Needed(t, "BAO"), "agent", "-config=" + config,
	}, "HOME="+dir)
	must(t, err)
	t.Cleanup(func() {
		process.Kill()
		if t.Failed() {
			t.Logf("the agent printed:\n%s", parts.Tail(process.Printed()))
		}
	})
	return process
}

// The agent starts after the plugin, renews its token beyond its first life, and logs in again when the token
// is revoked. The plugin neither renews nor revokes that token.
func TestTokenOfAnAgent(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ sink, flag string }{
		"plain":   {"", ""},
		"wrapped": {`wrap_ttl = "5m"`, "--token-file-wrapped"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l := tokenFile(t)
			must(t, l.tenant.MakeRole(map[string]any{"role_id": l.tenant.RoleID, "token_ttl": 20, "token_max_ttl": 600}))
			flags := l.allFlags(l.tenant.Bao.Address)
			if c.flag != "" {
				flags = append(flags, c.flag)
			}
			p := start(t, flags)
			p.untilTold(t, l.file)
			agent(t, l, c.sink)
			p.untilWorks(t, "agent started", fileBound)
			if renewed := p.counted(t, "vso_client_operations_total", `operation="renew"`); renewed != 0 {
				t.Errorf("the plugin renewed the agent's token %v times", renewed)
			}
			before := p.counted(t, "vso_client_operations_total", `operation="login"`)
			_, err := l.tenant.RevokeTokens()
			must(t, err)
			// The agent notices that only at its next renewal.
			p.untilWorks(t, "token revoked", outageBound)
			if after := p.counted(t, "vso_client_operations_total", `operation="login"`); after == before {
				t.Error("the plugin did not take a new token")
			}
			p.Stop()
			if c.flag == "" {
				token, err := os.ReadFile(l.file)
				must(t, err)
				if _, err := l.tenant.Bao.As(string(token)).Ask("GET", "auth/token/lookup-self", nil); err != nil {
					t.Errorf("the plugin revoked the agent's token: %v", err)
				}
			}
		})
	}
}

// What an agent writes for a wrapped token is not a token.
func TestWrappedTokenWithoutItsFlag(t *testing.T) {
	t.Parallel()
	l := tokenFile(t)
	text, err := json.Marshal(map[string]any{"token": "s.wrapping", "accessor": "", "ttl": 300})
	must(t, err)
	l.write(t, string(text))
	p := start(t, l.allFlags(l.tenant.Bao.Address))
	p.untilTold(t, "--token-file-wrapped")
}
