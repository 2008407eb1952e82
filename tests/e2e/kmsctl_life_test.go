package e2e_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"vault-kube-kms.test/cluster"
	"vault-kube-kms.test/suite"
)

// TestAWholeLife types the commands of docs/prove.md: from the data of another plugin to a key version that nothing
// needs. It expects that everything is read at each step, and that a backup from before needs the former version.
func TestAWholeLife(t *testing.T) {
	t.Parallel()
	const count = 40
	other := serveForeign(t)
	theirs := cluster.NamedKMS("other", other.endpoint)
	c := start(t, delayed(0), encrypting(func(string) string {
		return cluster.Encrypting("secrets", theirs, cluster.Identity)
	}), func(s *cluster.Settings) { s.Route = other.meets })
	createMany(t, c.api, 0, count)
	must(t, c.WriteEnvironment())
	dir := shortDir(t)

	prelude := "set -e; . " + cluster.EnvironmentFile(c.Dir) + "; cd " + dir + "; vault() { bao \"$@\"; }\n"
	for _, setting := range []string{
		"VAULT_ADDRESS=https://" + c.Bao.Address, "TLS_CA_FILE=" + c.Bao.CAFile, "VAULT_KEY_PATH=transit/keys/" + cluster.Key,
		"APPROLE_ROLE_ID=" + c.Tenant.RoleID, "APPROLE_SECRET_ID_PATH=" + c.Tenant.SecretIDFile,
	} {
		prelude += "export VAULT_KUBE_KMS_" + setting + "\n"
	}
	here := strings.NewReplacer(
		"vault-kube-kmsctl ", needed(t, "KMSCTL")+" ",
		"--api-server-manifest=/etc/kubernetes/manifests/kube-apiserver.yaml", "--etcd-servers="+c.Etcd.URL,
		" --config=/etc/vault-kube-kms/config.toml", "",
		"transit/keys/kubernetes", "transit/keys/"+cluster.Key,
	)
	blocks := suite.Consoles(t, "prove.md")
	typeNext := func() {
		t.Helper()
		suite.Type(t, "prove.md", blocks[0], prelude, here)
		blocks = blocks[1:]
	}

	typeNext() // The backup, and what is there.
	typeNext() // The rotation.
	// At its start the plugin reads the key.
	c.plugin.Stop()
	must(t, c.plugin.Restart())
	c.reconfigure(t, cluster.KMS(c.plugin.Endpoint), theirs)
	c.api.requireList(t, count)
	id := c.writesUnder(t, c.api, foreignKeyID)
	typeNext() // Everything is written again.
	if c.onlyKeyID(t) != id || !strings.HasPrefix(id, "v2.") {
		t.Fatalf("after the rewrite Secrets are stored under %v", c.keyIDs(t))
	}
	must(t, os.Rename(settledFor(t, c.plugin, 601), filepath.Join(dir, "cp-1.json")))
	typeNext() // What the backup needs.
	typeNext() // The version is retired.
	other.server.Stop()
	c.reconfigure(t, cluster.KMS(c.plugin.Endpoint))
	c.api.requireList(t, len(c.stored(t)))
	typeNext() // The backup cannot be read.
	typeNext() // It can be read again.
	if len(blocks) != 0 {
		t.Errorf("the document has %d more blocks", len(blocks))
	}
	report := suite.Page{T: t, URL: "file://" + filepath.Join(dir, "drill.html")}
	if text := report.Text(); !strings.Contains(text, "Everything is readable") {
		t.Errorf("the report does not say that everything is readable:\n%s", text)
	}
	report.Screen("drill")
}
