package apiserver_test

import (
	"strings"
	"testing"
	"time"

	"vault-kube-kms.test/parts"
	"vault-kube-kms.test/suite"
)

// A community edition of Vault ignores the header of the namespace, and uses the root namespace. Status is
// good, so the operator must be told.
func TestServerThatIgnoresNamespacesIsToldOf(t *testing.T) {
	t.Parallel()
	if !suite.OnVault() {
		t.Skip("OpenBao has namespaces")
	}
	n := sharedBao(t).tenant(t)
	const ignored = "the server is a community edition of Vault, which ignores --vault-namespace"
	flags := with(n.Flags(), "--vault-namespace=team")
	requireChecked(t, with(flags, "--listen-address="+newEndpoint(t)), 1, "WARN connection: "+ignored)
	requireChecked(t, with(n.Flags(), "--listen-address="+newEndpoint(t)), 0)

	p := start(t, flags)
	if !parts.Eventually(startBound, func() bool { return strings.Contains(p.Stdout.String(), ignored) }) {
		t.Errorf("nothing is said at the start: %s", p.Printed())
	}
}

// Five wrong secret IDs lock a role for all nodes. The node with the right one says so, and serves soon after
// the operator's unlock, with nothing else to do.
func TestServerThatLocksARoleIsTriedAgainWithinAMinute(t *testing.T) {
	t.Parallel()
	n := sharedBao(t).tenant(t)
	wrong := map[string]any{"role_id": n.RoleID, "secret_id": "wrong"}
	for range 5 {
		if _, err := n.Bao.LogIn("approle", wrong); err == nil {
			t.Fatal("a wrong secret ID is accepted")
		}
	}
	right := map[string]any{"role_id": n.RoleID, "secret_id": n.SecretID}
	if _, err := n.Bao.LogIn("approle", right); err == nil {
		t.Skip("this server locks no role")
	}
	p := launch(t, newEndpoint(t), n.Flags())
	p.waitAccepts(t)
	client := p.client(t)
	requireStatusSays(t, client, "the role is locked after failed logins")
	requireChecked(t, with(n.Flags(), "--listen-address="+newEndpoint(t)), 2, "FAIL login: the role is locked after failed logins",
		"not checked: policy, key, binding, clock")

	mounts := n.bao.must(t, "GET", "sys/auth", nil)
	approle, _ := mounts["approle/"].(map[string]any)
	accessor, _ := approle["accessor"].(string)
	n.bao.must(t, "POST", "sys/locked-users/"+accessor+"/unlock/"+n.RoleID, map[string]any{})
	unlocked := parts.StartWatch()
	if !parts.Eventually(time.Minute, func() bool {
		_, err := client.Status(t.Context())
		return err == nil
	}) {
		t.Errorf("it does not serve within a minute: %s", p.Printed())
	}
	t.Logf("it serves %v after the unlock", unlocked)
}

func TestServerWithoutTheAuthMountIsToldOf(t *testing.T) {
	t.Parallel()
	n := sharedBao(t).tenant(t)
	p := launch(t, newEndpoint(t), with(n.Flags(), "--auth-mount=nowhere"))
	p.waitAccepts(t)
	requireStatusSays(t, p.client(t), "no auth method is mounted at auth/nowhere")
}
