package apiserver_test

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"k8s.io/kms/pkg/service"

	"vault-kube-kms.test/parts"
)

// replica is one node of a control plane: a plugin, a client and an API server.
type replica struct {
	name   string
	client service.Service
	server *apiServer

	mu    sync.Mutex
	looks []told
	// sealed and served count objects that this node has written and both nodes have read.
	sealed, served int
}

// told is the answer of one Status.
type told struct {
	asked, answered time.Time
	keyID           string
	version         int
}

// controlPlane has two nodes with one key, and all objects that they have written.
type controlPlane struct {
	t        *testing.T
	provider string
	nodes    []*replica

	mu      sync.Mutex
	sealed  []stored
	written [][]byte
}

var aSecret = []byte(`{"kind":"Secret","data":{"password":"Y2FuYXJ5"}}`)

func newControlPlane(t *testing.T, flags []string) *controlPlane {
	t.Helper()
	plane := &controlPlane{t: t, provider: parts.RandomName()}
	for _, name := range []string{"A", "B"} {
		p := start(t, flags)
		plane.nodes = append(plane.nodes, &replica{
			name: name, client: p.client(t), server: newAPIServer(t, plane.provider, name, p),
		})
	}
	return plane
}

// TestChecklist60_TwoReplicasReadEachOtherAtEveryMoment also covers checklist 58 and 26: key ids neither repeat
// nor go back, and Encrypt uses the key id of Status.
func TestChecklist60_TwoReplicasReadEachOtherAtEveryMoment(t *testing.T) {
	t.Parallel()
	// The number of rotations, and the minimum number of key ids that both nodes must show: versions of the same
	// second take over together.
	const rotations, keyIDs = 22, 8
	tenant := sharedBao(t).tenant(t)
	plane := newControlPlane(t, delayed(tenant.Flags(), delay))
	ctx, stop := context.WithCancel(t.Context())
	var load sync.WaitGroup
	defer load.Wait()
	defer stop()
	for _, node := range plane.nodes {
		load.Go(func() { plane.watch(ctx, node) })
		load.Go(func() { plane.seal(ctx, node) })
		load.Go(func() { plane.serve(ctx, node) })
	}
	versions := 1
	for range rotations {
		// Rotations come at random times, also several within a second.
		time.Sleep(time.Duration(rand.IntN(4_000)) * time.Millisecond)
		tenant.rotate(t)
		versions++
	}
	plane.until("told the newest key id", func(node *replica) bool { return node.newest().version == versions })
	// On a slow machine, a key id may be replaced before the test asks a node.
	for ; plane.common() < keyIDs; versions++ {
		tenant.rotate(t)
		plane.until("told the newest key id", func(node *replica) bool { return node.newest().version == versions+1 })
	}
	plane.until("written enough that both nodes read", func(node *replica) bool {
		return node.sealed >= 5*rotations && node.served >= rotations
	})
	stop()
	load.Wait()
	plane.requireSameSwitches()
	plane.requireOneRewrite()
}

// until waits until the condition holds for each node. Its limit is long, so that only a node that hangs exceeds
// it.
func (c *controlPlane) until(what string, holds func(node *replica) bool) {
	c.t.Helper()
	for _, node := range c.nodes {
		if !parts.EventuallyEvery(50*time.Millisecond, 4*time.Minute, func() bool {
			node.mu.Lock()
			defer node.mu.Unlock()
			return c.t.Failed() || holds(node)
		}) {
			c.t.Errorf("%s has not %s: it writes under %s, %d seeds and %d Secrets", node.name, what,
				node.writesUnder(), node.sealed, node.served)
		}
		if c.t.Failed() {
			c.t.FailNow()
		}
	}
}

// newest returns the last answer of the node's Status. The caller holds the lock.
func (r *replica) newest() told {
	if len(r.looks) == 0 {
		return told{}
	}
	return r.looks[len(r.looks)-1]
}

func (r *replica) writesUnder() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.newest().keyID
}

// keyIDs returns all key ids of the node's Status, by version.
func (r *replica) keyIDs() map[int]string {
	r.mu.Lock()
	defer r.mu.Unlock()
	ids := map[int]string{}
	for _, one := range r.looks {
		ids[one.version] = one.keyID
	}
	return ids
}

// common returns the number of key ids that both nodes have shown.
func (c *controlPlane) common() (count int) {
	b := c.nodes[1].keyIDs()
	for version := range c.nodes[0].keyIDs() {
		if b[version] != "" {
			count++
		}
	}
	return count
}

// watch records the key ids of Status, and requires that they do not go back.
func (c *controlPlane) watch(ctx context.Context, node *replica) {
	for ; ctx.Err() == nil; pause(ctx, 50*time.Millisecond) {
		look := told{asked: time.Now()}
		answer, err := node.client.Status(ctx)
		look.answered = time.Now()
		if ctx.Err() != nil {
			return
		}
		if err != nil || answer.Healthz != "ok" {
			c.t.Errorf("%s: Status: %v, %v", node.name, answer, err)
			continue
		}
		look.keyID = answer.KeyID
		if _, err := fmt.Sscanf(look.keyID, "v%d.", &look.version); err != nil {
			c.t.Errorf("%s tells %s: %v", node.name, look.keyID, err)
		}
		node.mu.Lock()
		if before := node.newest(); look.version < before.version || look.version == before.version && look.keyID != before.keyID {
			c.t.Errorf("%s tells %s after %s", node.name, look.keyID, before.keyID)
		}
		node.looks = append(node.looks, look)
		node.mu.Unlock()
	}
}

// seal encrypts on one node. Both nodes decrypt the result and an older object.
func (c *controlPlane) seal(ctx context.Context, node *replica) {
	for ; ctx.Err() == nil; pause(ctx, 40*time.Millisecond) {
		plaintext := randomBytes(32)
		before, first := node.client.Status(ctx)
		sealed, err := node.client.Encrypt(ctx, "load", plaintext)
		after, second := node.client.Status(ctx)
		if ctx.Err() != nil {
			return
		}
		if first != nil || err != nil || second != nil {
			c.t.Errorf("%s: Status %v, Encrypt %v, Status %v", node.name, first, err, second)
			continue
		}
		if sealed.KeyID != before.KeyID && sealed.KeyID != after.KeyID {
			c.t.Errorf("%s: Encrypt uses %s between %s and %s", node.name, sealed.KeyID, before.KeyID, after.KeyID)
		}
		c.mu.Lock()
		c.sealed = append(c.sealed, stored{sealed, plaintext})
		some := []stored{c.sealed[len(c.sealed)-1], c.sealed[rand.IntN(len(c.sealed))]}
		c.mu.Unlock()
		for _, reader := range c.nodes {
			for _, one := range some {
				opened, err := reader.client.Decrypt(ctx, "load", asStored(one.sealed))
				if ctx.Err() != nil {
					return
				}
				if err != nil || !bytes.Equal(opened, one.plaintext) {
					c.t.Errorf("%s reads what %s wrote under %s: %v", reader.name, node.name, one.sealed.KeyID, err)
				}
			}
		}
		node.mu.Lock()
		node.sealed++
		node.mu.Unlock()
	}
}

// serve writes Secrets by the API server of a node. Both API servers read them and an older one.
func (c *controlPlane) serve(ctx context.Context, node *replica) {
	for ; ctx.Err() == nil; pause(ctx, 200*time.Millisecond) {
		// A new version may take over between its Status and its Encrypt. It asks again after 3 s.
		var unhealthy error
		if !parts.EventuallyEvery(200*time.Millisecond, 5*time.Second, func() bool {
			unhealthy = node.server.check()
			return unhealthy == nil || ctx.Err() != nil
		}) {
			c.t.Errorf("%s: the API server is unhealthy: %v", node.name, unhealthy)
		}
		written, err := node.server.write(ctx, aSecret)
		if err != nil {
			if ctx.Err() == nil {
				c.t.Errorf("%s: %v", node.name, err)
			}
			continue
		}
		c.mu.Lock()
		c.written = append(c.written, written)
		some := [][]byte{written, c.written[rand.IntN(len(c.written))]}
		c.mu.Unlock()
		for _, reader := range c.nodes {
			for _, one := range some {
				read, _, err := reader.server.read(ctx, one)
				if ctx.Err() != nil {
					return
				}
				if err != nil || !bytes.Equal(read, aSecret) {
					c.t.Errorf("%s reads a Secret of %s: %v", reader.name, node.name, err)
				}
			}
		}
		node.mu.Lock()
		node.served++
		node.mu.Unlock()
	}
}

// requireSameSwitches requires that both nodes have the same key id for each version, and switch within a second
// of each other. It compares the times of request and answer of each Status, so that a late request does not
// count as a late switch.
func (c *controlPlane) requireSameSwitches() {
	c.t.Helper()
	other := c.nodes[1].keyIDs()
	for version, id := range c.nodes[0].keyIDs() {
		if other[version] != "" && other[version] != id {
			c.t.Errorf("version %d is %s and %s", version, id, other[version])
		}
	}
	for turn, node := range c.nodes {
		ahead := c.nodes[1-turn].looks
		var known told
		for _, look := range node.looks {
			for len(ahead) > 0 && look.asked.Sub(ahead[0].answered) > time.Second {
				known, ahead = ahead[0], ahead[1:]
			}
			if look.version < known.version {
				c.t.Errorf("%s tells %s %v after the other node told %s", node.name, look.keyID, look.asked.Sub(known.answered), known.keyID)
				return
			}
		}
	}
}

// requireOneRewrite is checklist 61: after both API servers write under the newest key id, an old Secret is
// written again exactly once, by either API server.
func (c *controlPlane) requireOneRewrite() {
	newest := c.nodes[0].writesUnder()
	for _, node := range c.nodes {
		var err error
		// An API server asks for Status again 20 s after a good answer. Only one that hangs exceeds this limit.
		if !parts.EventuallyEvery(100*time.Millisecond, 2*time.Minute, func() bool {
			err = node.server.check()
			return storedUnder(c.t, c.provider, node.server.mustWrite(c.t, aSecret)) == newest
		}) {
			c.t.Fatalf("the API server of %s does not write under %s: %v", node.name, newest, err)
		}
	}
	old := c.written[0]
	a, b := c.nodes[0].server, c.nodes[1].server
	a.requireReads(c.t, old, aSecret, true)
	b.requireReads(c.t, old, aSecret, true)
	rewritten := a.mustWrite(c.t, aSecret)
	a.requireReads(c.t, rewritten, aSecret, false)
	b.requireReads(c.t, rewritten, aSecret, false)
}

// pause waits between two calls of a load.
func pause(ctx context.Context, between time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(between):
	}
}
