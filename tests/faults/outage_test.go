package faults_test

import (
	"strings"
	"syscall"
	"testing"
	"time"

	"vault-kube-kms.test/parts"
)

// requestsOfOutage limits the requests of a plugin per second of an outage, at any load: it asks each of three
// endpoints once in one to four seconds.
const requestsOfOutage = 3

// TestAllNodesStalledFor100s stops all nodes while connections stay open, as a network does that drops all
// packets. The token expires in this time, so the recovery needs a new login.
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

// TestAllNodesGoneFor5min ends all nodes, so that connections are refused.
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

// requireFailedFast requires that no call ended by the time limit of the client.
func (x *trial) requireFailedFast(a account) {
	x.t.Helper()
	for message, times := range a.said {
		if strings.Contains(message, "context deadline exceeded") {
			x.t.Errorf("%d calls end by the client's own time limit: %s", times, message)
		}
	}
}
