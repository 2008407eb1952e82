package faults_test

import (
	"strings"
	"syscall"
	"testing"
	"time"

	"vault-kube-kms.test/parts"
	"vault-kube-kms.test/suite"
)

// held is the minimum duration of a fault: several key reads and several open times of a breaker.
const held = 5 * time.Second

// TestNodes makes faults that concern the whole cluster, one after the other.
func TestNodes(t *testing.T) {
	t.Parallel()
	raft := ownRaft(t)
	for _, c := range []struct {
		name string
		test func(t *testing.T, raft *parts.Raft, leader *parts.OpenBao)
	}{
		// This comes first: in OpenBao 2.7.2 a node that became leader by the loss of another node does not step
		// down.
		{"LeaderSteppedDown", leaderSteppedDown},
		{"FollowerKilled", followerKilled},
		{"LeaderKilled", leaderKilled},
		{"LeaderSealed", leaderSealed},
		{"FollowerLags", followerLags},
		{"LoginAtAFollowerThatIsBehind", loginBehind},
		{"TokenOfAFollowerThatIsBehind", tokenBehind},
		{"AllSealed", allSealed},
		{"CertificatesRenewed", certificatesRenewed},
		{"AuthorityReplaced", authorityReplaced},
		{"AuthorityReplacedAtOnce", authorityReplacedAtOnce},
	} {
		leader, err := raft.UntilWhole()
		must(t, err)
		t.Run(c.name, func(t *testing.T) { c.test(t, raft, leader) })
	}
}

// The plugin prefers the node that ends. It uses the other nodes, so no call fails.
func followerKilled(t *testing.T, raft *parts.Raft, leader *parts.OpenBao) {
	follower := raft.Followers(leader)[0]
	x := newTrial(t, newTenant(t, raft), raft.Addresses(follower))
	x.begin()
	follower.Kill()
	time.Sleep(held)
	must(t, follower.Rejoin())
	x.end()
	x.require(promise{own: 30})
}

// Without a leader, standbys answer the requests that do not need one.
func leaderKilled(t *testing.T, raft *parts.Raft, leader *parts.OpenBao) {
	x := newTrial(t, newTenant(t, raft), raft.Addresses(leader))
	x.begin()
	leader.Kill()
	_, err := raft.LeaderBut(leader)
	must(t, err)
	time.Sleep(held)
	must(t, leader.Rejoin())
	x.end()
	x.require(promise{failures: electionFailures(), perFailure: 6, own: 60, sessionFailures: 6, logins: 1})
}

// electionFailures are the calls that may fail until another node leads. The standbys of Vault redirect to the
// former leader for up to three seconds.
func electionFailures() int {
	if suite.OnVault() {
		return 60
	}
	return 0
}

// For a short time the former leader answers with status 500 that there is no leader.
func leaderSteppedDown(t *testing.T, raft *parts.Raft, leader *parts.OpenBao) {
	x := newTrial(t, newTenant(t, raft), raft.Addresses(leader))
	// Only many workers notice such a short time.
	x.work(3 * workers)
	x.begin()
	_, err := leader.Ask("PUT", "sys/step-down", nil)
	must(t, err)
	_, err = raft.LeaderBut(leader)
	must(t, err)
	x.end()
	x.require(promise{own: 60, sessionFailures: 6, logins: 1})
}

func leaderSealed(t *testing.T, raft *parts.Raft, leader *parts.OpenBao) {
	x := newTrial(t, newTenant(t, raft), raft.Addresses(leader))
	x.begin()
	_, err := leader.Ask("PUT", "sys/seal", nil)
	must(t, err)
	_, err = raft.LeaderBut(leader)
	must(t, err)
	time.Sleep(held)
	must(t, leader.UntilUnsealed())
	x.end()
	x.require(promise{failures: electionFailures(), perFailure: 6, own: 60, sessionFailures: 6, logins: 1})
}

// A standby cannot be sealed by a request. It is sealed after a restart.
func allSealed(t *testing.T, raft *parts.Raft, leader *parts.OpenBao) {
	x := newTrial(t, newTenant(t, raft), raft.Addresses(leader))
	x.begin()
	for _, follower := range raft.Followers(leader) {
		follower.Kill()
		must(t, follower.RestartSealed())
	}
	leader.Kill()
	must(t, leader.RestartSealed())
	x.untilFails("Encrypt")
	x.untilFails("Decrypt")
	time.Sleep(held)
	must(t, raft.Each((*parts.OpenBao).UntilUnsealed))
	_, err := raft.Leader()
	must(t, err)
	x.end()
	x.require(promise{
		failures: unbounded, statusFailures: unbounded, logins: 2, sessionFailures: 10, perFailure: 0.2, own: 200,
	})
}

// A follower is paused while the key is rotated. A plugin that prefers it uses other nodes. A plugin with only
// this node reads new objects as soon as the node has caught up.
func followerLags(t *testing.T, raft *parts.Raft, leader *parts.OpenBao) {
	follower := raft.Followers(leader)[0]
	n := newTenant(t, raft)
	const early = "--rotation-delay=2s"
	x := newTrial(t, n, raft.Addresses(follower), early)
	reader := newTrial(t, n, []string{follower.Address}, early)
	x.begin()
	reader.begin()
	follower.Signal(syscall.SIGSTOP)
	t.Cleanup(func() { follower.Signal(syscall.SIGCONT) })
	must(t, n.Rotate())
	stopped := time.Now()
	rotated := x.untilWrites("v2.")
	time.Sleep(time.Until(stopped.Add(8 * time.Second)))
	reader.untilFails("Decrypt")
	follower.Signal(syscall.SIGCONT)
	x.end()
	reader.end()
	// The reader must succeed at once, even if the node is behind.
	reader.untilReads(rotated)
	x.require(promise{own: 60})
	reader.require(promise{
		failures: unbounded, statusFailures: unbounded, logins: 1, sessionFailures: 10, perFailure: 0.5, own: 100,
	})
	reader.requireReads(x.firstAndNewest(200))
}

// A follower that comes back does not know a new secret ID for some seconds, and refuses it. The plugin must then
// ask another node.
func loginBehind(t *testing.T, raft *parts.Raft, leader *parts.OpenBao) {
	follower := raft.Followers(leader)[0]
	follower.Kill()
	// After a longer absence the leader waits longer before it connects to the follower again.
	time.Sleep(held)
	n := newTenantAt(t, leader)
	must(t, follower.Rejoin())
	_, refused := follower.Ask("POST", "auth/approle/login", map[string]any{"role_id": n.RoleID, "secret_id": n.SecretID})
	t.Logf("the follower is behind: %v", refused != nil)
	x := newTrial(t, n, raft.Addresses(follower))
	x.begin()
	x.end()
	x.require(promise{own: 30})
}

// The follower knows the secret ID and forwards the login, but does not know the new token yet.
func tokenBehind(t *testing.T, raft *parts.Raft, leader *parts.OpenBao) {
	follower := raft.Followers(leader)[0]
	n := newTenant(t, raft)
	follower.Kill()
	time.Sleep(held)
	must(t, n.Allow(parts.UseOfKey...))
	must(t, follower.Rejoin())
	x := newTrial(t, n, raft.Addresses(follower))
	if logins := x.counters().logins; logins != 1 {
		t.Errorf("%v logins for one session", logins)
	}
	x.begin()
	x.end()
	x.require(promise{own: 30})
}

// untilWrites waits until an object is stored under this version.
func (x *trial) untilWrites(version string) stored {
	x.t.Helper()
	var newest stored
	if !parts.EventuallyEvery(50*time.Millisecond, startBound, func() bool {
		all := x.firstAndNewest(1)
		newest = all[len(all)-1]
		return strings.HasPrefix(newest.sealed.KeyID, version)
	}) {
		x.t.Errorf("the plugin never writes with %s, only under %s", version, newest.sealed.KeyID)
	}
	return newest
}

// untilReads waits until the plugin decrypts an object of another plugin.
func (x *trial) untilReads(one stored) {
	x.t.Helper()
	var last error
	if !parts.EventuallyEvery(50*time.Millisecond, recoveryBound, func() bool {
		last = x.read(one)
		return last == nil
	}) {
		x.t.Errorf("the plugin does not read the object within %v: %v", recoveryBound, last)
	}
	x.t.Logf("an object that was stored during the fault is read %v after it", time.Since(x.over).Round(10*time.Millisecond))
}
