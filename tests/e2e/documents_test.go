package e2e_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"vault-kube-kms.test/cluster"
	"vault-kube-kms.test/parts"
	"vault-kube-kms.test/suite"
)

// TestTheCommandsOfTheDocumentsWork types all commands of the documents for operators, in the order of the
// documents, and compares the output. The names of the control plane replace those of the documents.
func TestTheCommandsOfTheDocumentsWork(t *testing.T) {
	t.Parallel()
	c := start(t, delayed(0))
	must(t, c.WriteEnvironment())
	dir := shortDir(t)
	must(t, os.Symlink(deployed(t, "."), filepath.Join(dir, "deploy")))
	here := strings.NewReplacer(
		"localhost:9090", c.plugin.MetricsAddress(),
		"transit/keys/kubernetes/", "transit/keys/"+cluster.Key+"/",
		"auth/approle/role/vault-kube-kms/", "auth/approle/role/"+cluster.Key+"/",
		"/etc/vault-kube-kms/secret-id", c.Tenant.SecretIDFile,
	)
	settings := []string{
		"LISTEN_ADDRESS=" + c.plugin.Endpoint, "VAULT_ADDRESS=https://" + c.Bao.Address, "TLS_CA_FILE=" + c.Bao.CAFile,
		"VAULT_KEY_PATH=transit/keys/" + cluster.Key, "APPROLE_ROLE_ID=" + c.Tenant.RoleID,
		"APPROLE_SECRET_ID_PATH=" + c.Tenant.SecretIDFile,
	}
	prelude := "set -e; . " + cluster.EnvironmentFile(c.Dir) + "; cd " + dir + "; export CLI=bao HOME=" + dir + "; vault() { bao \"$@\"; }\n"
	for _, setting := range settings {
		prelude += "export VAULT_KUBE_KMS_" + setting + "\n"
	}
	out, err := parts.Command("bash", "-c", prelude+"kubectl create secret generic demo --from-literal=a=b").CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	for _, file := range []string{"install.md", "failure-modes.md", "operations.md"} {
		for _, block := range suite.Consoles(t, file) {
			suite.Type(t, file, block, prelude, here)
		}
	}
	if id := c.onlyKeyID(t); !strings.HasPrefix(id, "v2.") {
		t.Errorf("after the rotation and the migration Secrets are stored under %s", id)
	}
	if fresh, err := os.ReadFile(c.Tenant.SecretIDFile); err != nil || strings.Contains(string(fresh), c.Tenant.SecretID) {
		t.Errorf("the secret ID is the former one, or cannot be read: %v", err)
	}
	if !c.plugin.Healthy() {
		t.Error("the provider is not healthy at the end")
	}
}
