package e2e_test

import (
	"fmt"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"vault-kube-kms.test/cluster"
	"vault-kube-kms.test/parts"
)

// This delay is long enough to see the state before and after it.
const delay = 5 * time.Second

// writesUnder waits until an API server writes under another key id than before, and returns it.
func (c *controlPlane) writesUnder(t *testing.T, a api, before string) (id string) {
	t.Helper()
	if !parts.EventuallyEvery(time.Second, converges, func() bool {
		// Requests for its health make it ask for Status more often than once a minute.
		_, _ = a.answers(kmsReady)
		name := parts.RandomName()
		must(t, a.create(name))
		id = c.keyIDOf(t, name)
		return id != before
	}) {
		t.Fatalf("the API server writes under %s after %v", before, converges)
	}
	return id
}

func (c *controlPlane) keyIDOf(t *testing.T, name string) string {
	t.Helper()
	all := c.stored(t)
	at := slices.IndexFunc(all, func(s stored) bool { return s.name == name })
	if at < 0 {
		t.Fatalf("%s is not stored", name)
	}
	object := all[at].object(t, cluster.Provider)
	if object == nil {
		t.Fatalf("%s is stored as %.40q", name, all[at].raw)
	}
	return object.KeyID
}

// TestARotationAndAStorageMigration expects that no object is left under the former key id after a rotation and a
// storage migration.
func TestARotationAndAStorageMigration(t *testing.T) {
	t.Parallel()
	c := start(t, delayed(delay))
	createMany(t, c.api, 0, 200)
	first := c.onlyKeyID(t)
	must(t, c.Rotate())
	second := c.writesUnder(t, c.api, first)
	before := c.keyIDs(t)
	if before[first] < 200 || before[second] == 0 || len(before) != 2 {
		t.Errorf("before the migration: %v", before)
	}
	if rewritten := c.api.migrate(t); rewritten != before[first] {
		t.Errorf("%d of %d were stored again", rewritten, before[first])
	}
	if c.onlyKeyID(t) != second {
		t.Error("the Secrets are not stored under the new key id")
	}
	if rewritten := c.api.migrate(t); rewritten != 0 {
		t.Errorf("a second migration stores %d objects again", rewritten)
	}
	// The former version is no longer needed.
	_, err := c.Bao.Ask("POST", "transit/keys/"+cluster.Key+"/config", map[string]any{"min_decryption_version": 2})
	must(t, err)
	c.restartAPIServer(t)
	names, err := c.api.list()
	if err != nil || len(names) != c.keyIDs(t)[second] {
		t.Errorf("%d are read without the former version: %v", len(names), err)
	}
}

// TestTwoAPIServersThroughRotations runs two API servers on one etcd through rotations under load. It expects
// that each always reads the objects of the other, and that both use the same key id at the end.
func TestTwoAPIServersThroughRotations(t *testing.T) {
	t.Parallel()
	c := start(t, delayed(delay), func(s *cluster.Settings) { s.Replicas = 2 })
	servers := []api{c.api, {c.Nodes[1].APIServer}}
	c.api.mustCreate(t, "first")
	id := c.onlyKeyID(t)
	crossing := repeatedly(t, 4, 20*time.Millisecond, func(name string) error {
		for turn, server := range servers {
			name := fmt.Sprintf("%s-%d", name, turn)
			if err := server.create(name); err != nil {
				return err
			}
			if _, err := servers[1-turn].read(name); err != nil {
				return err
			}
		}
		return nil
	})
	lists := repeatedly(t, 1, 200*time.Millisecond, func(string) error {
		for _, server := range servers {
			if _, err := server.list(); err != nil {
				return err
			}
		}
		return nil
	})
	for range 2 {
		must(t, c.Rotate())
		next := c.writesUnder(t, servers[0], id)
		if other := c.writesUnder(t, servers[1], id); other != next {
			t.Fatalf("one API server writes under %s, the other under %s", next, other)
		}
		id = next
	}
	crossing.requireNoFailure(t)
	lists.requireNoFailure(t)
	if ids := c.keyIDs(t); len(ids) != 3 {
		t.Errorf("two rotations: %v", ids)
	}
	// Each object is written again exactly once, by the API server that comes first.
	first := servers[0].migrate(t)
	if again := servers[1].migrate(t) + servers[0].migrate(t); first == 0 || again != 0 {
		t.Errorf("%d objects are stored again at first, and %d in the second migration", first, again)
	}
	if c.onlyKeyID(t) != id {
		t.Error("the Secrets are not stored under the last key id")
	}
}

// TestEtcdIsRestoredToBeforeARotation restores etcd to a state before a rotation. It expects that its objects are
// read, and that new ones are written under the present key id.
func TestEtcdIsRestoredToBeforeARotation(t *testing.T) {
	t.Parallel()
	c := start(t, delayed(0))
	createMany(t, c.api, 0, 20)
	first := c.onlyKeyID(t)
	snapshot := filepath.Join(shortDir(t), "snapshot")
	must(t, c.Etcd.Save(snapshot))
	must(t, c.Rotate())
	second := c.writesUnder(t, c.api, first)
	c.api.migrate(t)
	if c.onlyKeyID(t) != second {
		t.Fatal("the migration left objects")
	}
	c.api.Kill()
	must(t, c.Etcd.Restore(snapshot))
	must(t, c.api.Start())
	c.api.requireList(t, 20)
	if c.onlyKeyID(t) != first {
		t.Error("etcd did not go back")
	}
	c.api.mustCreate(t, "after")
	if c.keyIDOf(t, "after") != second {
		t.Error("it is written under the former key id")
	}
	c.api.migrate(t)
	if c.onlyKeyID(t) != second {
		t.Error("the migration left objects")
	}
}
