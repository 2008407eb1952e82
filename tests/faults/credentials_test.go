package faults_test

import (
	"testing"
	"time"

	"vault-kube-kms.test/parts"
)

// aged is a trial whose token is not new any more: one that is refused moments after it was given is
// replaced with a pause.
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
		t.Fatal("the token does not grow older")
	}
	return x
}

// A token that is revoked costs one login, and no call.
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
		t.Error("no login follows: there was no fault")
	}
}

// Without its role no login is possible; one that is made again, with a new secret ID in the file,
// heals it at once.
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
	// Nothing is asked without a token: a failed call costs nothing.
	x.require(promise{
		failures: unbounded, statusFailures: unbounded, logins: 1, sessionFailures: 2, perFailure: 0.1, own: 40,
	})
}

// The former secret ID is dead before the new one is in the file, and a login falls in between: the
// token that is held is used on.
func TestSecretIDReplaced(t *testing.T) {
	t.Parallel()
	raft := sharedRaft(t)
	n := newTenant(t, raft)
	// A batch token cannot be renewed: there is a login every ten seconds. The five seconds after a refused one
	// are enough to see the new file, even on a busy machine.
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
		t.Error("no login is refused: there is no fault")
	}
	must(t, n.WriteSecretID(n.SecretID))
	x.end()
	x.require(promise{logins: 3, sessionFailures: 1, own: 30})
}

// What the policy no longer allows fails with that cause, asks for no login, and works as soon as it
// is allowed again.
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
