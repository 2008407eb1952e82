package apiserver_test

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
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

	mu       sync.Mutex
	order    []string
	switched map[string]time.Time
}

// controlPlane is two nodes with one key, and all that they have written.
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
			switched: map[string]time.Time{},
		})
	}
	return plane
}

// Checklist 58 and 26 too: key ids neither repeat nor go back, and Encrypt holds to Status.
func TestChecklist60_TwoReplicasReadEachOtherAtEveryMoment(t *testing.T) {
	t.Parallel()
	const rotations = 22
	tenant := sharedBao(t).tenant(t)
	plane := newControlPlane(t, delayed(tenant.Flags(), delay))
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var load sync.WaitGroup
	for _, node := range plane.nodes {
		load.Go(func() { plane.watch(ctx, node) })
		load.Go(func() { plane.seal(ctx, node) })
		load.Go(func() { plane.serve(ctx, node) })
	}
	for range rotations {
		// Whenever it comes, also several times within a second.
		time.Sleep(time.Duration(rand.IntN(4_000)) * time.Millisecond)
		tenant.rotate(t)
	}
	newest := fmt.Sprintf("v%d.", rotations+1)
	for _, node := range plane.nodes {
		if !parts.EventuallyEvery(50*time.Millisecond, delay+5*time.Second, func() bool {
			return strings.HasPrefix(node.writesUnder(), newest)
		}) {
			t.Errorf("%s still writes under %s", node.name, node.writesUnder())
		}
	}
	stop()
	load.Wait()
	plane.requireSameSwitches(rotations)
	if len(plane.sealed) < 10*rotations || len(plane.written) < rotations {
		t.Errorf("only %d seeds and %d Secrets were written", len(plane.sealed), len(plane.written))
	}
	plane.requireOneRewrite()
}

func (r *replica) writesUnder() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.order) == 0 {
		return ""
	}
	return r.order[len(r.order)-1]
}

// watch notes when Status tells a new key id, and that it tells none of before.
func (c *controlPlane) watch(ctx context.Context, node *replica) {
	for ; ctx.Err() == nil; pause(ctx, 50*time.Millisecond) {
		answer, err := node.client.Status(ctx)
		if ctx.Err() != nil {
			return
		}
		if err != nil || answer.Healthz != "ok" {
			c.t.Errorf("%s: Status: %v, %v", node.name, answer, err)
			continue
		}
		if answer.KeyID == node.writesUnder() {
			continue
		}
		node.mu.Lock()
		if _, before := node.switched[answer.KeyID]; before {
			c.t.Errorf("%s goes back to %s", node.name, answer.KeyID)
		}
		node.switched[answer.KeyID] = time.Now()
		node.order = append(node.order, answer.KeyID)
		node.mu.Unlock()
	}
}

// seal lets a node encrypt, and both nodes decrypt that and something of before.
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
				if ctx.Err() == nil && (err != nil || !bytes.Equal(opened, one.plaintext)) {
					c.t.Errorf("%s reads what %s wrote under %s: %v", reader.name, node.name, one.sealed.KeyID, err)
				}
			}
		}
	}
}

// serve lets a node's API server write Secrets, and both API servers read that and another one.
func (c *controlPlane) serve(ctx context.Context, node *replica) {
	healthy := time.Now()
	for ; ctx.Err() == nil; pause(ctx, 200*time.Millisecond) {
		// A new version may come between its Status and its Encrypt; it asks again after 3 s.
		if err := node.server.check(); err == nil {
			healthy = time.Now()
		} else if time.Since(healthy) > 5*time.Second {
			c.t.Errorf("%s: the API server is unhealthy: %v", node.name, err)
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
				if ctx.Err() == nil && (err != nil || !bytes.Equal(read, aSecret)) {
					c.t.Errorf("%s reads a Secret of %s: %v", reader.name, node.name, err)
				}
			}
		}
	}
}

// requireSameSwitches holds both nodes to the same key ids, in the same order, of ever higher
// versions, within a second of each other.
func (c *controlPlane) requireSameSwitches(rotations int) {
	a, b := c.nodes[0], c.nodes[1]
	if strings.Join(a.order, " ") != strings.Join(b.order, " ") {
		c.t.Errorf("A told\n%v\nB told\n%v", a.order, b.order)
	}
	// Versions that were made within the same second take over together.
	if len(a.order) < rotations/2 {
		c.t.Errorf("only %d key ids", len(a.order))
	}
	last := 0
	for i, id := range a.order {
		var version int
		if _, err := fmt.Sscanf(id, "v%d.", &version); err != nil || version <= last {
			c.t.Errorf("after version %d comes %s, %v", last, id, err)
		}
		last = version
		// The first one was there before anybody looked.
		if apart := a.switched[id].Sub(b.switched[id]).Abs(); i > 0 && apart > time.Second {
			c.t.Errorf("the nodes switch to %s with %v between them", id, apart)
		}
	}
}

// requireOneRewrite is checklist 61: once both API servers write under the newest key id, an old
// Secret is written anew once, whichever of them gets the update.
func (c *controlPlane) requireOneRewrite() {
	newest := c.nodes[0].writesUnder()
	for _, node := range c.nodes {
		var err error
		// An API server asks for Status again 20 s after a good answer.
		if !parts.EventuallyEvery(100*time.Millisecond, 25*time.Second, func() bool {
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

// pause is the time between two calls of a load.
func pause(ctx context.Context, between time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(between):
	}
}
