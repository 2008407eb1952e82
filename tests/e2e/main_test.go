// Package e2e_test stores real Secrets in a real etcd through a real kube-apiserver, the plugin and a real
// keeper. Numbers in the names of tests are those of the KMS v2 conformance checklist.
package e2e_test

import (
	"fmt"
	"testing"
	"time"

	"vault-kube-kms.test/cluster"
	"vault-kube-kms.test/parts"
	"vault-kube-kms.test/suite"
)

func TestMain(m *testing.M) { suite.Main(m, 16) }

// converges limits the time until an API server uses a new key id. It asks Status at least once a minute.
const converges = 100 * time.Second

var (
	needed   = suite.Needed
	must     = suite.Must
	shortDir = suite.ShortDir
	long     = suite.Long
)

func programs(t *testing.T) cluster.Programs {
	t.Helper()
	return cluster.Programs{
		Plugin:     needed(t, "PROVIDER"),
		Kubernetes: needed(t, "KUBERNETES"), Etcd: needed(t, "ETCD"),
	}
}

// controlPlane is the cluster of one test.
type controlPlane struct {
	*cluster.Cluster
	// api is the first API server. plugin is the plugin on its node.
	api    api
	plugin *parts.Plugin
}

// start starts a control plane whose Secrets are encrypted by a key in its own OpenBao, unless the test changes
// that.
func start(t *testing.T, changes ...func(*cluster.Settings)) *controlPlane {
	t.Helper()
	settings := cluster.Settings{
		Programs: programs(t), Dir: shortDir(t), Keeper: cluster.OpenBao, Replicas: 1,
		Encryption: cluster.Secrets,
		Say:        func(text string) { t.Log(text) },
	}
	for _, change := range changes {
		change(&settings)
	}
	if settings.Keeper == cluster.OpenBao && settings.Programs.OpenBao == "" {
		settings.Programs.OpenBao = needed(t, "BAO")
	}
	c, err := cluster.Up(settings)
	must(t, err)
	t.Cleanup(func() {
		if t.Failed() {
			for _, node := range c.Nodes {
				t.Logf("API server printed:\n%s", parts.Tail(node.APIServer.Printed()))
				t.Logf("plugin printed:\n%s", parts.Tail(node.Plugin.Printed()))
			}
		}
		c.Down()
	})
	return &controlPlane{c, api{c.Nodes[0].APIServer}, c.Nodes[0].Plugin}
}

// delayed sets the delay after which a new key version writes.
func delayed(by time.Duration) func(*cluster.Settings) {
	return func(s *cluster.Settings) {
		s.PluginFlags = append(s.PluginFlags, fmt.Sprintf("--rotation-delay=%s", by))
	}
}

// encrypting sets another EncryptionConfiguration.
func encrypting(encryption func(endpoint string) string) func(*cluster.Settings) {
	return func(s *cluster.Settings) { s.Encryption = encryption }
}

// reloading makes the API server read a changed EncryptionConfiguration by itself.
func reloading(s *cluster.Settings) {
	s.APIServerFlags = append(s.APIServerFlags, "--encryption-provider-config-automatic-reload=true")
}

// reconfigure gives the API server another EncryptionConfiguration and restarts it.
func (c *controlPlane) reconfigure(t *testing.T, providers ...string) {
	t.Helper()
	must(t, c.Nodes[0].Configure(cluster.Encrypting("secrets", providers...)))
	c.restartAPIServer(t)
}

func (c *controlPlane) restartAPIServer(t *testing.T) {
	t.Helper()
	c.api.Kill()
	must(t, c.api.Start())
}

// calls returns the number of calls of a method since the plugin's start.
func (c *controlPlane) calls(t *testing.T, method string) int {
	t.Helper()
	calls, err := c.plugin.Calls(method)
	must(t, err)
	return calls
}
