package e2e_test

import (
	"os"
	"testing"

	"vault-kube-kms.test/cluster"
)

// The key is on a token of SoftHSM. The provider needs the feature pkcs11.
func TestSecretsUnderAKeyOnAToken(t *testing.T) {
	if os.Getenv("TOKEN") == "" {
		t.Skip("cargo xtask test runs it with a program that has the feature pkcs11")
	}
	c := start(t, delayed(delay), func(s *cluster.Settings) { s.Keeper = cluster.PKCS11 })
	c.api.mustCreate(t, "before")
	first := c.onlyKeyID(t)
	// After its restart the API server has no seed, so that it asks the token for each.
	c.restartAPIServer(t)
	c.api.requireReads(t, "before")

	must(t, c.Rotate())
	second := c.writesUnder(t, c.api, first)
	c.api.mustCreate(t, "after")
	c.plugin.Kill()
	// The API server writes under the seed that it has.
	c.api.mustCreate(t, "meanwhile")
	must(t, c.plugin.Restart())
	c.restartAPIServer(t)
	c.api.requireReads(t, "before", "after", "meanwhile")

	if old := c.keyIDs(t)[first]; old == 0 || c.api.migrate(t) != old {
		t.Errorf("%d Secrets were under the former key id, and another number was stored anew", old)
	}
	if c.onlyKeyID(t) != second {
		t.Error("the Secrets are not stored under the new key id")
	}
	c.api.requireReads(t, "before", "after", "meanwhile")
}
