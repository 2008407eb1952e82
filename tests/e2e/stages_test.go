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

// socketDirectory is the directory of the socket in the files of deploy/.
const socketDirectory = "/run/vault-kube-kms"

// deployed returns the path of a file of deploy/.
func deployed(t *testing.T, file string) string {
	t.Helper()
	path, err := filepath.Abs(filepath.Join("../../deploy", file))
	must(t, err)
	return path
}

// stage returns a shipped EncryptionConfiguration with another socket and the name of the suite's provider.
func stage(t *testing.T, file, endpoint string) string {
	t.Helper()
	text, err := os.ReadFile(deployed(t, "kubernetes/encryption-config/"+file))
	must(t, err)
	stage := string(text)
	for shipped, here := range map[string]string{
		"endpoint: unix://" + socketDirectory + "/vault-kube-kms.sock\n": "endpoint: " + endpoint + "\n",
		"name: vault-kube-kms\n": "name: " + cluster.Provider + "\n",
	} {
		if strings.Count(stage, shipped) != 1 {
			t.Fatalf("%s does not have %q exactly once", file, shipped)
		}
		stage = strings.Replace(stage, shipped, here, 1)
	}
	return stage
}

// TestTheStagesOfTheEncryptionConfiguration moves Secrets from clear text to the provider with the shipped files.
// Two API servers get each file one after the other. The test expects that both always read all Secrets.
func TestTheStagesOfTheEncryptionConfiguration(t *testing.T) {
	t.Parallel()
	c := start(t, func(s *cluster.Settings) { s.Replicas = 2 }, encrypting(func(string) string {
		return cluster.Encrypting("secrets", cluster.Identity)
	}))
	names := []string{"before"}
	c.api.mustCreate(t, names...)
	advance := func(file, written string) {
		t.Helper()
		for index, node := range c.Nodes {
			must(t, node.Configure(stage(t, file, node.Plugin.Endpoint)))
			server := api{node.APIServer}
			server.Kill()
			must(t, server.Start())
			name := fmt.Sprintf("%s-%d", written, index+1)
			server.mustCreate(t, name)
			names = append(names, name)
			for _, reader := range c.Nodes {
				api{reader.APIServer}.requireList(t, len(names))
			}
		}
	}
	advance("1-read.yaml", "read")
	for _, s := range c.stored(t) {
		if !s.isClear() {
			t.Errorf("%s is encrypted before every API server can read it: %.40q", s.name, s.raw)
		}
	}
	advance("2-write.yaml", "write")
	for _, s := range c.stored(t) {
		if encrypted := s.object(t, cluster.Provider) != nil; encrypted != strings.HasPrefix(s.name, "write-") {
			t.Errorf("%s is encrypted: %v", s.name, encrypted)
		}
	}
	if rewritten := c.api.migrate(t); rewritten != 3 {
		t.Errorf("%d of the 3 Secrets in clear text were stored again", rewritten)
	}
	advance("3-only.yaml", "only")
	c.onlyKeyID(t)
	entries, err := c.Etcd.Under("/registry/")
	must(t, err)
	for _, entry := range entries {
		if bytes.Contains(entry.Value, []byte(value(""))) {
			t.Errorf("%s holds a value in clear text", entry.Key)
		}
	}
}
