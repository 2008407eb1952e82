package e2e_test

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"vault-kube-kms.test/cluster"
	"vault-kube-kms.test/parts"
)

// typed is what a document tells one to type, and what is printed then.
type typed struct{ command, printed string }

// consoles are the console blocks of a document.
func consoles(t *testing.T, file string) (blocks [][]typed) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("../../docs", file))
	must(t, err)
	for _, part := range strings.Split(string(text), "\n```console\n")[1:] {
		body, _, ended := strings.Cut(part, "```\n")
		if !ended || !strings.HasPrefix(body, "$ ") {
			t.Fatalf("%s: a console block is not one: %s", file, part)
		}
		var block []typed
		for _, line := range strings.Split(strings.TrimPrefix("\n"+body, "\n$ "), "\n$ ") {
			command, printed, _ := strings.Cut(line, "\n")
			block = append(block, typed{command, strings.TrimSuffix(printed, "\n")})
		}
		blocks = append(blocks, block)
	}
	return blocks
}

// matches says whether a text is as a document has it, where … stands for anything.
func matches(expected, text string) bool {
	pattern := strings.ReplaceAll(regexp.QuoteMeta(expected), "…", ".*")
	// A document may leave out what follows the first lines.
	return regexp.MustCompile(`(?s)^` + pattern).MatchString(text)
}

// All that the documents for operators tell one to type works as it is told, in the order of the documents, on a
// control plane whose names stand for those of the documents.
func TestWhatTheDocumentsTellOneToType(t *testing.T) {
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
		for _, block := range consoles(t, file) {
			script := prelude
			for _, step := range block {
				script += here.Replace(step.command) + "\nprintf '\\1'\n"
			}
			out, err := parts.Command("timeout", "300", "bash", "-c", script).CombinedOutput()
			printed := strings.Split(string(out), "\x01")
			for index, step := range block {
				switch {
				case index >= len(printed)-1:
					t.Fatalf("%s: %s: %v: %s", file, step.command, err, out)
				case !matches(here.Replace(step.printed), strings.TrimSuffix(printed[index], "\n")):
					t.Errorf("%s: %s prints\n%s\nand not\n%s", file, step.command, printed[index], step.printed)
				}
			}
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
