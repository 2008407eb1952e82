// Package faults_test runs the plugin against a real OpenBao of three Raft nodes, under the load of the API
// server's own client. It makes one fault after the other, and compares every plaintext.
package faults_test

import (
	"testing"

	"vault-kube-kms.test/parts"
	"vault-kube-kms.test/suite"
)

func TestMain(m *testing.M) { suite.Main(m, 16, shared.End) }

var (
	needed   = suite.Needed
	must     = suite.Must
	shortDir = suite.ShortDir
	long     = suite.Long
)

var shared = suite.Shared[*parts.Raft]{Start: parts.StartRaft}

// sharedRaft is the cluster of all tests whose fault concerns one tenant.
func sharedRaft(t *testing.T) *parts.Raft {
	t.Helper()
	raft := shared.Use(t)
	t.Cleanup(func() { tellOnFailure(t, raft) })
	return raft
}

// ownRaft starts a cluster for faults that concern all its tenants.
func ownRaft(t *testing.T) *parts.Raft {
	t.Helper()
	raft, err := parts.StartRaft(parts.Way{}, suite.Server(t), shortDir(t))
	must(t, err)
	t.Cleanup(func() {
		raft.Kill()
		tellOnFailure(t, raft)
	})
	return raft
}

func tellOnFailure(t *testing.T, raft *parts.Raft) {
	t.Helper()
	if t.Failed() {
		for _, node := range raft.Nodes {
			t.Logf("%s printed:\n%s", node.Address, parts.Tail(node.Printed()))
		}
	}
}

// newTenant makes a tenant with its own mount and key.
func newTenant(t *testing.T, raft *parts.Raft) *parts.Tenant {
	t.Helper()
	leader, err := raft.UntilWhole()
	must(t, err)
	n := newTenantAt(t, leader)
	// The key was made last, so a node that knows it has all other changes too.
	must(t, raft.Each(func(node *parts.OpenBao) error {
		return node.Until(func() error {
			_, err := node.Ask("GET", n.Mount+"/keys/"+n.Key, nil)
			return err
		})
	}))
	return n
}

// newTenantAt is newTenant without the wait for all nodes: some nodes may not know the tenant yet.
func newTenantAt(t *testing.T, leader *parts.OpenBao) *parts.Tenant {
	t.Helper()
	name := parts.RandomName()
	_, err := leader.Ask("POST", "sys/mounts/"+name, map[string]any{"type": "transit"})
	must(t, err)
	n, err := leader.NewTenantOf(name, name, shortDir(t), tokenSeconds, parts.UseOfKey...)
	must(t, err)
	must(t, n.MakeKey())
	return n
}

// Tokens are renewed during short faults, and expire in long ones.
const tokenSeconds = 60
