package faults_test

import (
	"strings"
	"syscall"
	"testing"
	"time"

	"vault-kube-kms.test/parts"
)

// requestsOfOutage is what a plugin may ask for in a second of an outage, be its load what it may: each
// of three endpoints is asked once in one to four seconds.
const requestsOfOutage = 3

// Nothing answers any more, and connections stay open: as when the network swallows everything. The
// token ends meanwhile, so only a new login heals it.
func TestAllNodesStalledFor100s(t *testing.T) {
	t.Parallel()
	raft := ownRaft(t)
	outage(t, raft, 100*time.Second,
		func() {
			for _, node := range raft.Nodes {
				node.Signal(syscall.SIGSTOP)
			}
		},
		func() error {
			for _, node := range raft.Nodes {
				node.Signal(syscall.SIGCONT)
			}
			return nil
		})
}

// Nobody listens any more.
func TestAllNodesGoneFor5min(t *testing.T) {
	long(t)
	t.Parallel()
	raft := ownRaft(t)
	outage(t, raft, 5*time.Minute, raft.Kill, func() error { return raft.Each((*parts.OpenBao).Rejoin) })
}

func outage(t *testing.T, raft *parts.Raft, lasts time.Duration, cause func(), ends func() error) {
	t.Helper()
	n := newTenant(t, raft)
	x := newTrial(t, n, raft.Addresses(n.Bao))
	x.begin()
	cause()
	time.Sleep(time.Until(x.began.Add(lasts)))
	a := x.account(x.began.Add(callTimeout))
	if a.keeperFailures() != a.keeperCalls() || a.failed["Status"] == 0 {
		t.Errorf("there is no outage: %v calls, %v failed", a.calls, a.failed)
	}
	must(t, ends())
	_, err := raft.Leader()
	must(t, err)
	x.end()
	seconds := int(time.Since(x.began).Seconds())
	x.require(promise{
		failures: unbounded, statusFailures: unbounded, logins: 2,
		// A login or a renewal fails every few seconds.
		sessionFailures: seconds / 4, own: requestsOfOutage * seconds,
	})
	x.requireFailedFast(a)
}

// requireFailedFast fails if calls waited for the client's own clock.
func (x *trial) requireFailedFast(a account) {
	x.t.Helper()
	for message, times := range a.said {
		if strings.Contains(message, "context deadline exceeded") {
			x.t.Errorf("%d calls run into the client's own clock: %s", times, message)
		}
	}
}
