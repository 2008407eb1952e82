package faults_test

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"vault-kube-kms.test/parts"
)

// All nodes get new certificates of the same authority: connections that are open go on, and new ones
// are believed.
func certificatesRenewed(t *testing.T, raft *parts.Raft, leader *parts.OpenBao) {
	x := newTrial(t, newTenant(t, raft), raft.Addresses(leader))
	x.begin()
	must(t, raft.Renew(raft.Authority))
	x.end()
	x.openManyConnections()
	x.require(promise{own: 30})
}

// The authority itself is replaced as operators do it: first both are trusted, then the nodes change,
// then only the new one is.
func authorityReplaced(t *testing.T, raft *parts.Raft, leader *parts.OpenBao) {
	bundle := newBundle(t, raft)
	former := raft.Authority
	next, err := raft.NextAuthority()
	must(t, err)
	x := newTrial(t, newTenant(t, raft), raft.Addresses(leader), bundle.flag())
	x.begin()
	bundle.trust(former, next)
	x.untilTrusts(1)
	must(t, raft.Renew(next))
	bundle.trust(next)
	x.untilTrusts(2)
	x.end()
	x.openManyConnections()
	x.require(promise{own: 30})
}

// Without that care there is a while in which no new connection can be made; those that are open serve.
func authorityReplacedAtOnce(t *testing.T, raft *parts.Raft, leader *parts.OpenBao) {
	bundle := newBundle(t, raft)
	next, err := raft.NextAuthority()
	must(t, err)
	x := newTrial(t, newTenant(t, raft), raft.Addresses(leader), bundle.flag())
	x.begin()
	must(t, raft.Renew(next))
	x.openManyConnections()
	bundle.trust(next)
	x.end()
	x.untilTrusts(1)
	x.openManyConnections()
	x.require(promise{failures: unbounded, perFailure: 4, own: 60})
}

// bundle is the plugin's file of authorities.
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

// trust makes these all that are trusted.
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

// untilTrusts waits until the plugin has taken up so many bundles.
func (x *trial) untilTrusts(bundles int) {
	x.t.Helper()
	if !parts.Eventually(startBound, func() bool {
		return strings.Count(x.plugin.Printed(), "the new authorities in") >= bundles
	}) {
		x.t.Errorf("the plugin has not taken up %d bundles", bundles)
	}
}

// openManyConnections asks so much at once that connections of before do not suffice.
func (x *trial) openManyConnections() {
	var group sync.WaitGroup
	for range 64 {
		group.Go(func() {
			if one, ok := x.seal(); ok {
				x.open(one)
			}
		})
	}
	group.Wait()
}
