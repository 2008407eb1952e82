package e2e_test

import (
	"net/http"
	"testing"
	"time"

	"vault-kube-kms.test/parts"
)

// TestFaultsUnderConstantWrites makes faults of the keeper and of the credentials, one after the other, under
// constant writes. It expects that no write fails, and that the API server keeps its seed.
func TestFaultsUnderConstantWrites(t *testing.T) {
	t.Parallel()
	c := start(t)
	c.api.mustCreate(t, "before")
	id := c.onlyKeyID(t)
	writes := repeatedly(t, 2, 50*time.Millisecond, c.api.create)
	reads := repeatedly(t, 2, 50*time.Millisecond, func(string) error { _, err := c.api.read("before"); return err })
	for _, fault := range []struct {
		name string
		run  func(t *testing.T, c *controlPlane)
	}{
		{"its tokens are revoked", revokeTokens},
		{"the secret ID is replaced", replaceSecretID},
		{"the keeper is sealed", sealAndUnseal},
		{"the policy is away", forbidAndAllow},
		{"the role is made anew", remakeRole},
	} {
		fault.run(t, c)
		over := time.Now()
		if !parts.Eventually(10*time.Second, func() bool { return c.plugin.Healthy() }) {
			t.Errorf("%s: the plugin is not healthy 10 s later", fault.name)
		}
		t.Logf("%s: healthy %v later", fault.name, time.Since(over).Round(10*time.Millisecond))
		c.api.waitFor(t, kmsReady, http.StatusOK, converges)
	}
	writes.requireNoFailure(t)
	reads.requireNoFailure(t)
	if c.onlyKeyID(t) != id || c.seeds(t) != 1 {
		t.Errorf("faults led to another key id, or to other seeds: %d", c.seeds(t))
	}
}

// TestTheAPIServerRestartsAsTheTokenIsRevoked restarts the API server right after the token of its plugin was
// revoked.
func TestTheAPIServerRestartsAsTheTokenIsRevoked(t *testing.T) {
	t.Parallel()
	c := start(t)
	c.api.mustCreate(t, "one", "two")
	c.untilTheTokenIsOld(t)
	c.api.Kill()
	revokeTokens(t, c)
	must(t, c.api.Start())
	c.api.requireReads(t, "one", "two")
	c.api.mustCreate(t, "three")
}

func revokeTokens(t *testing.T, c *controlPlane) {
	t.Helper()
	c.untilTheTokenIsOld(t)
	revoked, err := c.Tenant.RevokeTokens()
	must(t, err)
	if revoked == 0 {
		t.Error("there was no token to revoke")
	}
}

// untilTheTokenIsOld waits until the token is some seconds old. A younger token would be replaced only after a
// pause.
func (c *controlPlane) untilTheTokenIsOld(t *testing.T) {
	t.Helper()
	if !parts.Eventually(time.Minute, func() bool {
		metrics, err := c.plugin.Metrics()
		left, found := metrics.Sum("vault_kube_kms_token_left_seconds")
		// Tokens live for 120 s.
		return err == nil && found && left < 109
	}) {
		t.Fatal("the token is renewed or replaced too often")
	}
}

func replaceSecretID(t *testing.T, c *controlPlane) {
	t.Helper()
	former := c.Tenant.SecretID
	var err error
	c.Tenant.SecretID, err = c.Tenant.NewSecretID()
	must(t, err)
	must(t, c.Tenant.WriteSecretID(c.Tenant.SecretID))
	must(t, c.Tenant.DestroySecretID(former))
}

func sealAndUnseal(t *testing.T, c *controlPlane) {
	t.Helper()
	_, err := c.Bao.Ask("PUT", "sys/seal", nil)
	must(t, err)
	// This is longer than the grace time, in which Status does not report an outage.
	if !parts.Eventually(time.Minute, func() bool { return !c.plugin.Healthy() }) {
		t.Error("the plugin is healthy without its keeper")
	}
	must(t, c.Bao.UntilUnsealed())
}

func forbidAndAllow(t *testing.T, c *controlPlane) {
	t.Helper()
	must(t, c.Tenant.Forbid())
	if !parts.Eventually(time.Minute, func() bool { return !c.plugin.Healthy() }) {
		t.Error("the plugin is healthy although it has no rights")
	}
	must(t, c.Tenant.Allow(parts.UseOfKey...))
}

func remakeRole(t *testing.T, c *controlPlane) {
	t.Helper()
	must(t, c.Tenant.DeleteRole())
	_, err := c.Tenant.RevokeTokens()
	must(t, err)
	if !parts.Eventually(time.Minute, func() bool { return !c.plugin.Healthy() }) {
		t.Error("the plugin is healthy without a role")
	}
	must(t, c.Tenant.MakeRole(map[string]any{"role_id": c.Tenant.RoleID}))
	c.Tenant.SecretID, err = c.Tenant.NewSecretID()
	must(t, err)
	must(t, c.Tenant.WriteSecretID(c.Tenant.SecretID))
}
