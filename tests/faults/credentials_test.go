package faults_test

import (
	"testing"
	"time"

	"vault-kube-kms.test/parts"
)

// aged waits until the token of a trial is some seconds old. A token that is refused soon after its login is
// replaced only after a pause.
func aged(t *testing.T) *trial {
	t.Helper()
	raft := sharedRaft(t)
	tenant := newTenant(t, raft)
	x := newTrial(t, tenant, raft.Addresses(tenant.Bao))
	const pauseOfNew = 10
	if !parts.EventuallyEvery(100*time.Millisecond, startBound, func() bool {
		left, err := x.counted("vault_kube_kms_token_left_seconds")
		return err == nil && left < tokenSeconds-pauseOfNew-1
	}) {
		t.Fatal("the token is renewed or replaced too often")
	}
	return x
}

// TestTokenRevoked expects that a revoked token costs one login, and no failed call.
func TestTokenRevoked(t *testing.T) {
	t.Parallel()
	x := aged(t)
	x.begin()
	revoked, err := x.tenant.RevokeTokens()
	must(t, err)
	x.end()
	if revoked == 0 {
		t.Error("there was no token to revoke")
	}
	x.require(promise{logins: 1, own: 30})
	if after := x.counters(); after.logins == x.before.logins {
		t.Error("no login follows, so the test made no fault")
	}
}

// TestRoleDeletedAndMadeAgain deletes the role, so that no login is possible. It expects an immediate recovery
// after the role is made again and the file has a new secret ID.
func TestRoleDeletedAndMadeAgain(t *testing.T) {
	t.Parallel()
	x := aged(t)
	n := x.tenant
	x.begin()
	must(t, n.DeleteRole())
	_, err := n.RevokeTokens()
	must(t, err)
	for _, method := range methods {
		x.untilFails(method)
	}
	must(t, n.MakeRole(map[string]any{
		"role_id": n.RoleID, "token_ttl": tokenSeconds, "token_max_ttl": 2 * tokenSeconds,
	}))
	n.SecretID, err = n.NewSecretID()
	must(t, err)
	must(t, n.WriteSecretID(n.SecretID))
	x.end()
	// Without a token no request is sent, so a failed call costs no request.
	x.require(promise{
		failures: unbounded, statusFailures: unbounded, logins: 1, sessionFailures: 2, perFailure: 0.1, own: 40,
	})
}

// TestSecretIDReplaced destroys the secret ID before the file has the new one. A login fails in this time. The
// test expects that the present token stays in use.
func TestSecretIDReplaced(t *testing.T) {
	t.Parallel()
	raft := sharedRaft(t)
	n := newTenant(t, raft)
	// A batch token cannot be renewed, so there is a login every ten seconds. The plugin sees the new file within
	// five seconds after a refused login, even on a busy machine.
	must(t, n.MakeRole(map[string]any{"token_type": "batch", "token_ttl": "15s", "token_max_ttl": "15s"}))
	x := newTrial(t, n, raft.Addresses(n.Bao))
	x.begin()
	former := n.SecretID
	var err error
	n.SecretID, err = n.NewSecretID()
	must(t, err)
	must(t, n.DestroySecretID(former))
	if !parts.EventuallyEvery(20*time.Millisecond, startBound, func() bool {
		refused, err := x.counted("vault_kube_kms_session_failures_total", `code="login-refused"`)
		return err == nil && refused > x.before.refusedLogins
	}) {
		t.Error("no login is refused, so the test made no fault")
	}
	must(t, n.WriteSecretID(n.SecretID))
	x.end()
	x.require(promise{logins: 3, sessionFailures: 1, own: 30})
}

// TestPolicyTakenAwayAndBack expects that denied calls fail with that cause and without a login, and succeed as
// soon as the policy allows them again.
func TestPolicyTakenAwayAndBack(t *testing.T) {
	t.Parallel()
	raft := sharedRaft(t)
	n := newTenant(t, raft)
	x := newTrial(t, n, raft.Addresses(n.Bao))
	x.begin()
	must(t, n.Forbid())
	for _, method := range methods {
		x.untilFails(method)
	}
	time.Sleep(3 * time.Second)
	must(t, n.Allow(parts.UseOfKey...))
	x.end()
	x.require(promise{
		failures: unbounded, statusFailures: unbounded, perFailure: 1.1, own: 60,
	})
}
