package e2e_test

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"vault-kube-kms.test/cluster"
)

// newInstallation is a directory that init has written, and the root directory of a node beside a real cluster.
type newInstallation struct {
	*controlPlane
	dir, root string
}

// initialise writes an installation for the key of a cluster whose objects are in clear text.
func initialise(t *testing.T) newInstallation {
	t.Helper()
	c := start(t, encrypting(func(string) string { return cluster.Encrypting("secrets", cluster.Identity) }))
	here := newInstallation{c, filepath.Join(shortDir(t), "new"), shortDir(t)}
	ctl(t, good, "init", "--yes", "--out="+here.dir, "--set=vault-address=https://"+c.Bao.Address,
		"--set=vault-key-path=transit/keys/"+cluster.Key)
	return here
}

// put writes a file of the node.
func (i newInstallation) put(t *testing.T, path, text string) {
	t.Helper()
	place := filepath.Join(i.root, path)
	must(t, os.MkdirAll(filepath.Dir(place), 0o755))
	must(t, os.WriteFile(place, []byte(text), 0o600))
}

// read returns a file of the installation.
func (i newInstallation) read(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(i.dir, path))
	must(t, err)
	return string(text)
}

// configure gives a stage to the node, and to the API server with the socket and the name of the suite.
func (i newInstallation) configure(t *testing.T, file string) {
	t.Helper()
	text := i.read(t, "3-api-server/"+file)
	i.put(t, "/etc/kubernetes/encryption/encryption-config.yaml", text)
	for shipped, here := range map[string]string{
		"endpoint: unix://" + socketDirectory + "/vault-kube-kms.sock\n": "endpoint: " + i.plugin.Endpoint + "\n",
		"name: vault-kube-kms\n": "name: " + cluster.Provider + "\n",
	} {
		if strings.Count(text, shipped) != 1 {
			t.Fatalf("%s does not have %q exactly once", file, shipped)
		}
		text = strings.Replace(text, shipped, here, 1)
	}
	must(t, i.Nodes[0].Configure(text))
	i.restartAPIServer(t)
}

// require types init --check and requires the state of each step.
func (i newInstallation) require(t *testing.T, code int, expected string) {
	t.Helper()
	var steps []struct{ Step, State, Why string }
	ctl(t, code, "init", "--check="+i.dir, "--root="+i.root, "--output=json",
		"--kubeconfig="+filepath.Join(i.Dir, "kubeconfig")).answer(t, &steps)
	var told []string
	for _, step := range steps {
		told = append(told, step.Step+" "+step.State)
	}
	if got := strings.Join(told, ", "); got != expected {
		t.Errorf("steps are\n%s\nand not\n%s\n%+v", got, expected, steps)
	}
}

// TestANewInstallation follows the files and the steps of init on a real cluster, from clear text to the last stage.
func TestANewInstallation(t *testing.T) {
	t.Parallel()
	i := initialise(t)
	must(t, i.WriteEnvironment())
	i.api.mustCreate(t, "before")

	again := ctl(t, noAnswer, "init", "--yes", "--out="+i.dir, "--set=vault-address=https://a:1", "--set=vault-key-path=t/keys/k")
	if !strings.Contains(again.stderr, "directory-exists") {
		t.Error(again.stderr)
	}
	policy := i.read(t, "1-keeper/policy.hcl")
	if !strings.Contains(policy, "transit/encrypt/"+cluster.Key) {
		t.Error(policy)
	}

	var manifest bytes.Buffer
	fmt.Fprint(&manifest, "apiVersion: v1\nkind: Pod\nmetadata: {name: kube-apiserver}\nspec:\n  containers:\n    - name: a\n"+
		"      command: [kube-apiserver]\n")
	i.put(t, "/etc/kubernetes/manifests/kube-apiserver.yaml", manifest.String())
	i.require(t, bad, "keeper not-done, provider not-done, serves not-done, read not-done, write not-done, rewrite not-done, only not-done")

	// The provider of the suite stands for the installed one.
	i.put(t, "/etc/kubernetes/manifests/vault-kube-kms.yaml", i.read(t, "2-provider/vault-kube-kms.yaml"))
	for _, name := range []string{"role-id", "secret-id", "ca.pem"} {
		i.put(t, "/etc/vault-kube-kms/"+name, "x")
	}
	must(t, os.MkdirAll(filepath.Join(i.root, socketDirectory), 0o755))
	must(t, os.Symlink(strings.TrimPrefix(i.plugin.Endpoint, "unix://"), filepath.Join(i.root, socketDirectory, "vault-kube-kms.sock")))
	i.require(t, bad, "keeper done, provider done, serves done, read not-done, write not-done, rewrite not-done, only not-done")

	fmt.Fprint(&manifest, "      args: [--encryption-provider-config=/etc/kubernetes/encryption/encryption-config.yaml]\n"+
		"      volumeMounts:\n"+
		"        - {name: e, mountPath: /etc/kubernetes/encryption}\n        - {name: s, mountPath: /run/vault-kube-kms}\n"+
		"  volumes:\n    - {name: e, hostPath: {path: /etc/kubernetes/encryption, type: Directory}}\n"+
		"    - {name: s, hostPath: {path: /run/vault-kube-kms, type: Directory}}\n")
	i.put(t, "/etc/kubernetes/manifests/kube-apiserver.yaml", manifest.String())
	i.configure(t, "1-read.yaml")
	i.require(t, bad, "keeper done, provider done, serves done, read done, write not-done, rewrite not-done, only not-done")
	i.api.requireReads(t, "before")

	i.configure(t, "2-write.yaml")
	i.api.mustCreate(t, "after")
	i.require(t, bad, "keeper done, provider done, serves done, read done, write done, rewrite unknown, only not-done")
	if i.keyIDOf(t, "after") == "" {
		t.Error("a Secret is not written with the provider")
	}

	if rewritten := i.api.migrate(t); rewritten != 1 {
		t.Errorf("%d Secrets are stored again", rewritten)
	}
	i.configure(t, "3-only.yaml")
	i.require(t, good, "keeper done, provider done, serves done, read done, write done, rewrite done, only done")
	i.api.requireReads(t, "before", "after")
}
