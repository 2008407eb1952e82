package faults_test

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"vault-kube-kms.test/parts"
)

// The test gives all nodes new certificates of the same authority. Open connections go on. Then the node of these
// connections ends, so that the plugin must connect again.
func certificatesRenewed(t *testing.T, raft *parts.Raft, leader *parts.OpenBao) {
	follower := raft.Followers(leader)[0]
	x := newTrial(t, newTenant(t, raft), raft.Addresses(follower))
	x.begin()
	must(t, raft.Renew(raft.Authority))
	x.end()
	x.reconnect(follower)
	x.require(promise{own: 30})
	must(t, follower.Rejoin())
}

// The test replaces the authority as operators do: the plugin trusts both, then the nodes change, then the plugin
// trusts only the new one.
func authorityReplaced(t *testing.T, raft *parts.Raft, leader *parts.OpenBao) {
	bundle := newBundle(t, raft)
	former := raft.Authority
	next, err := raft.NextAuthority()
	must(t, err)
	follower := raft.Followers(leader)[0]
	x := newTrial(t, newTenant(t, raft), raft.Addresses(follower), bundle.flag())
	x.begin()
	bundle.trust(former, next)
	x.untilTrusts(1)
	must(t, raft.Renew(next))
	bundle.trust(next)
	x.untilTrusts(2)
	x.end()
	x.reconnect(follower)
	x.require(promise{own: 30})
	must(t, follower.Rejoin())
}

// The test replaces the authority at once. Calls must fail only until the file holds the new authority.
func authorityReplacedAtOnce(t *testing.T, raft *parts.Raft, leader *parts.OpenBao) {
	bundle := newBundle(t, raft)
	next, err := raft.NextAuthority()
	must(t, err)
	x := newTrial(t, newTenant(t, raft), raft.Addresses(leader), bundle.flag())
	x.begin()
	must(t, raft.Renew(next))
	// No former connection stays open.
	raft.Kill()
	must(t, raft.Each((*parts.OpenBao).Rejoin))
	_, err = raft.UntilWhole()
	must(t, err)
	x.untilFails("Encrypt")
	x.untilFails("Decrypt")
	time.Sleep(held)
	bundle.trust(next)
	x.end()
	x.require(promise{
		failures: unbounded, statusFailures: unbounded, logins: 2, sessionFailures: 10, perFailure: 0.2, own: 200,
	})
}

// reconnect ends a node, and waits until calls succeed over new connections to other nodes.
func (x *trial) reconnect(node *parts.OpenBao) {
	x.t.Helper()
	node.Kill()
	x.untilCallsWork(time.Now())
}

// bundle returns the plugin's file of authorities.
type bundle struct {
	t    *testing.T
	file string
}

func newBundle(t *testing.T, raft *parts.Raft) bundle {
	t.Helper()
	b := bundle{t, filepath.Join(shortDir(t), "ca.pem")}
	b.trust(raft.Authority)
	return b
}

func (b bundle) flag() string { return "--tls-ca-file=" + b.file }

// trust makes the plugin trust only these authorities.
func (b bundle) trust(authorities ...*parts.Authority) {
	b.t.Helper()
	var pem []byte
	for _, authority := range authorities {
		one, err := os.ReadFile(authority.File)
		must(b.t, err)
		pem = slices.Concat(pem, one)
	}
	must(b.t, os.WriteFile(b.file+".new", pem, 0o600))
	must(b.t, os.Rename(b.file+".new", b.file))
}

// untilTrusts waits until the plugin has read this number of bundles.
func (x *trial) untilTrusts(bundles int) {
	x.t.Helper()
	if !parts.Eventually(startBound, func() bool {
		return strings.Count(x.plugin.Printed(), "new connections use the new authorities") >= bundles
	}) {
		x.t.Errorf("the plugin has not taken up %d bundles", bundles)
	}
}
