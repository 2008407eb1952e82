package e2e_test

import (
	"testing"
	"time"

	"vault-kube-kms.test/cluster"
	"vault-kube-kms.test/parts"
)

const reloads = "apiserver_encryption_config_controller_automatic_reloads_total"

// TestChecklist72_AConfigurationIsTakenUpByItself expects that clear data becomes encrypted without a restart,
// and that a configuration that does not work changes nothing.
func TestChecklist72_AConfigurationIsTakenUpByItself(t *testing.T) {
	t.Parallel()
	c := start(t, reloading, encrypting(func(string) string { return cluster.Encrypting("secrets", cluster.Identity) }))
	endpoint := c.plugin.Endpoint
	c.api.mustCreate(t, "one", "two")
	for _, s := range c.stored(t) {
		if !s.isClear() {
			t.Fatalf("%s is stored as %.40q", s.name, s.raw)
		}
	}
	c.reload(t, "success", cluster.KMS(endpoint), cluster.Identity)
	c.api.requireReads(t, "one", "two")
	if rewritten := c.api.migrate(t); rewritten != 2 {
		t.Errorf("%d of 2 were stored again", rewritten)
	}
	c.onlyKeyID(t)

	c.reload(t, "failure", cluster.KMS(endpoint+".missing"), cluster.KMS(endpoint), cluster.Identity)
	c.api.mustCreate(t, "three")
	c.api.requireList(t, 3)
	c.onlyKeyID(t)

	// The former provider is removed. No object of it is left.
	c.reload(t, "success", cluster.KMS(endpoint))
	c.api.requireList(t, 3)
	c.api.mustCreate(t, "four")
	c.onlyKeyID(t)
}

// reload gives the API server another configuration, and waits until the API server has tried it.
func (c *controlPlane) reload(t *testing.T, outcome string, providers ...string) {
	t.Helper()
	label := `status="` + outcome + `"`
	before := c.api.metric(t, reloads, label)
	must(t, c.Nodes[0].Configure(cluster.Encrypting("secrets", providers...)))
	began := time.Now()
	if !parts.EventuallyEvery(500*time.Millisecond, converges, func() bool {
		return c.api.metric(t, reloads, label) > before
	}) {
		t.Fatalf("no %s after %v", outcome, converges)
	}
	t.Logf("%s after %v", outcome, time.Since(began).Round(time.Second))
}

// TestMovingFromAnotherProviderAndBackToIdentity moves data from another provider to the plugin, and back to
// clear data.
func TestMovingFromAnotherProviderAndBackToIdentity(t *testing.T) {
	t.Parallel()
	c := start(t, encrypting(func(string) string {
		return cluster.Encrypting("secrets", cluster.AESCBC, cluster.Identity)
	}))
	kms := cluster.KMS(c.plugin.Endpoint)
	createMany(t, c.api, 0, 20)
	// First every API server must be able to read with the provider.
	c.reconfigure(t, cluster.AESCBC, kms)
	c.api.requireList(t, 20)
	c.reconfigure(t, kms, cluster.AESCBC)
	c.api.requireList(t, 20)
	if rewritten := c.api.migrate(t); rewritten != 20 {
		t.Errorf("%d of 20 were stored again", rewritten)
	}
	c.reconfigure(t, kms)
	c.api.requireList(t, 20)
	c.onlyKeyID(t)

	c.reconfigure(t, cluster.Identity, kms)
	c.api.requireList(t, 20)
	c.api.migrate(t)
	c.reconfigure(t, cluster.Identity)
	c.api.requireList(t, 20)
	for _, s := range c.stored(t) {
		if !s.isClear() {
			t.Errorf("%s is stored as %.40q", s.name, s.raw)
		}
	}
}
