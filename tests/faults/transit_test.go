package faults_test

import (
	"fmt"
	"testing"
	"time"

	"vault-kube-kms.test/parts"
)

// TestMountGoneAndBack moves the mount away and back. The key is the same afterwards, so the test expects no
// incident.
func TestMountGoneAndBack(t *testing.T) {
	t.Parallel()
	raft := sharedRaft(t)
	n := newTenant(t, raft)
	x := newTrial(t, n, raft.Addresses(n.Bao))
	away := parts.RandomName()
	x.begin()
	remount(t, n.Bao, n.Mount, away)
	for _, method := range methods {
		x.untilFails(method)
	}
	time.Sleep(3 * time.Second)
	remount(t, n.Bao, away, n.Mount)
	x.end()
	x.require(promise{
		failures: unbounded, statusFailures: unbounded, perFailure: 1.1, own: 60,
	})
}

// remount moves a mount, and waits until the move has ended.
func remount(t *testing.T, bao *parts.OpenBao, from, to string) {
	t.Helper()
	var started map[string]any
	// An election may interrupt it.
	must(t, bao.Until(func() (err error) {
		started, err = bao.Ask("POST", "sys/remount", map[string]any{"from": from, "to": to})
		return err
	}))
	must(t, bao.Until(func() error {
		about, err := bao.Ask("GET", fmt.Sprint("sys/remount/status/", started["migration_id"]), nil)
		if err != nil {
			return err
		}
		if info, _ := about["migration_info"].(map[string]any); info["status"] != "success" {
			return fmt.Errorf("the mount is not moved: %v", info)
		}
		return nil
	}))
}

// TestRateLimitQuota sets a quota that refuses most requests. It expects few repeats, and that no endpoint's
// breaker opens.
func TestRateLimitQuota(t *testing.T) {
	t.Parallel()
	raft := sharedRaft(t)
	n := newTenant(t, raft)
	x := newTrial(t, n, raft.Addresses(n.Bao))
	quota := "sys/quotas/rate-limit/" + n.Mount
	x.begin()
	_, err := n.Bao.Ask("POST", quota, map[string]any{"path": n.Mount + "/", "rate": 5})
	must(t, err)
	x.untilFails("Encrypt")
	x.untilFails("Decrypt")
	time.Sleep(6 * time.Second)
	_, err = n.Bao.Ask("DELETE", quota, nil)
	must(t, err)
	x.end()
	// Each refused request is sent once more, after the second that the keeper asks for.
	x.require(promise{failures: unbounded, perFailure: 2.2, own: 60})
	for endpoint := range raft.Nodes {
		if state, err := x.counted("vault_kube_kms_endpoint_breaker", fmt.Sprintf(`endpoint="%d"`, endpoint)); err != nil || state != 0 {
			t.Errorf("the breaker of endpoint %d is open: %v, %v", endpoint, state, err)
		}
	}
}
