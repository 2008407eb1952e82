package faults_test

import (
	"syscall"
	"time"

	"vault-kube-kms.test/parts"
)

// soakFault makes a fault. It returns when the cause has ended.
type soakFault struct {
	name string
	run  func(s *soak)
}

// lagBound limits the time that a node lags behind the others. 0.1 s was measured.
const lagBound = 5 * time.Second

var soakFaults = []soakFault{
	{"nothing", func(s *soak) { time.Sleep(s.some(2, 5)) }},
	{"rotation", (*soak).rotate},
	{"plugin killed", (*soak).killPlugin},
	{"leader killed", (*soak).killLeader},
	{"leader steps down", (*soak).stepDown},
	{"leader sealed", (*soak).sealLeader},
	{"tokens revoked", (*soak).revokeTokens},
	{"secret ID replaced", (*soak).replaceSecretID},
	{"policy away and back", (*soak).forbid},
	{"mount away and back", (*soak).moveMount},
	{"certificates renewed", func(s *soak) { must(s.t, s.raft.Renew(s.raft.Authority)) }},
	{"node stalls", (*soak).stallNode},
	{"all nodes stall", (*soak).stallAll},
}

// some returns a random duration between these numbers of seconds.
func (s *soak) some(least, most int) time.Duration {
	return time.Duration(least)*time.Second + time.Duration(s.chance.Int64N(int64(most-least)*int64(time.Second)))
}

// tenant returns the tenant at a node that leads, and led at the check before. A node that comes back may take
// itself for the leader until it hears from another one.
func (s *soak) tenant() *parts.Tenant {
	s.t.Helper()
	n := s.lasts.tenant
	var before *parts.OpenBao
	if !parts.EventuallyEvery(time.Second, parts.StartBound, func() bool {
		leader, err := s.raft.UntilWhole()
		settled := err == nil && leader == before
		before, n.Bao = leader, leader
		return settled
	}) {
		s.t.Fatal("the cluster does not settle on a leader")
	}
	return n
}

// insist repeats an action until it succeeds, because an election may interrupt it. The action must be safe to
// repeat.
func (s *soak) insist(do func(n *parts.Tenant) error) {
	s.t.Helper()
	var last error
	if !parts.EventuallyEvery(250*time.Millisecond, parts.StartBound, func() bool {
		last = do(s.tenant())
		return last == nil
	}) {
		s.t.Fatal(last)
	}
}

// rotate first restarts a permanently stale node, as docs/outages.md says. A rotation through such a node would
// make a version that already exists.
func (s *soak) rotate() {
	s.restartStale()
	s.insist((*parts.Tenant).Rotate)
	s.rotations++
	time.Sleep(s.some(1, 8))
}

func (s *soak) restartStale() {
	newest := 0.0
	for _, node := range s.raft.Nodes {
		newest = max(newest, s.latestAt(node))
	}
	for _, node := range s.raft.Nodes {
		if !parts.Eventually(lagBound, func() bool { return s.latestAt(node) >= newest }) {
			s.t.Logf("SOAK | a node is stale: it knows key version %v of %v, and is restarted", s.latestAt(node), newest)
			node.Kill()
			must(s.t, node.Rejoin())
		}
	}
}

// latestAt returns the newest key version that a node knows, or 0.
func (s *soak) latestAt(node *parts.OpenBao) float64 {
	about, err := node.Ask("GET", s.lasts.tenant.Mount+"/keys/"+s.lasts.tenant.Key, nil)
	if err != nil {
		return 0
	}
	latest, _ := about["latest_version"].(float64)
	return latest
}

// killPlugin kills one plugin during its calls, and starts it again.
func (s *soak) killPlugin() {
	s.killed.plugin.Kill()
	must(s.t, s.killed.plugin.Restart())
	s.killed.pid = s.killed.plugin.Pid()
}

func (s *soak) killLeader() {
	leader := s.tenant().Bao
	leader.Kill()
	_, err := s.raft.LeaderBut(leader)
	must(s.t, err)
	time.Sleep(s.some(1, 5))
	must(s.t, leader.Rejoin())
}

// stepDown makes the leader step down. The election may choose the same node again.
func (s *soak) stepDown() {
	s.insist(func(n *parts.Tenant) error {
		_, err := n.Bao.Ask("PUT", "sys/step-down", nil)
		return err
	})
	_, err := s.raft.UntilWhole()
	must(s.t, err)
}

func (s *soak) sealLeader() {
	leader := s.tenant().Bao
	_, err := leader.Ask("PUT", "sys/seal", nil)
	must(s.t, err)
	_, err = s.raft.LeaderBut(leader)
	must(s.t, err)
	must(s.t, leader.UntilUnsealed())
}

func (s *soak) stallNode() { s.stall(s.raft.Nodes[s.chance.IntN(len(s.raft.Nodes))]) }

func (s *soak) stallAll() { s.stall(s.raft.Nodes...) }

func (s *soak) stall(nodes ...*parts.OpenBao) {
	for _, node := range nodes {
		node.Signal(syscall.SIGSTOP)
	}
	time.Sleep(s.some(2, 15))
	for _, node := range nodes {
		node.Signal(syscall.SIGCONT)
	}
	_, err := s.raft.UntilWhole()
	must(s.t, err)
}

func (s *soak) revokeTokens() {
	s.insist(func(n *parts.Tenant) error { _, err := n.RevokeTokens(); return err })
}

func (s *soak) replaceSecretID() {
	former := s.lasts.tenant.SecretID
	s.insist(func(n *parts.Tenant) (err error) { n.SecretID, err = n.NewSecretID(); return err })
	must(s.t, s.lasts.tenant.WriteSecretID(s.lasts.tenant.SecretID))
	s.insist(func(n *parts.Tenant) error { return n.DestroySecretID(former) })
}

func (s *soak) forbid() {
	s.insist((*parts.Tenant).Forbid)
	time.Sleep(s.some(1, 4))
	s.insist(func(n *parts.Tenant) error { return n.Allow(parts.UseOfKey...) })
}

func (s *soak) moveMount() {
	n := s.tenant()
	away := parts.RandomName()
	remount(s.t, n.Bao, n.Mount, away)
	time.Sleep(s.some(1, 4))
	remount(s.t, n.Bao, away, n.Mount)
}
