package apiserver_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	kmsapi "k8s.io/kms/apis/v2"
	"k8s.io/kms/pkg/service"

	"vault-kube-kms.test/parts"
)

const seedsOfAStorm = 2_000

// sealMany returns this number of different objects with their plaintexts.
func sealMany(t *testing.T, client service.Service, count int) (all []stored) {
	t.Helper()
	all = make([]stored, count)
	var group sync.WaitGroup
	const workers = 16
	for worker := range workers {
		group.Go(func() {
			for n := worker; n < count; n += workers {
				plaintext := randomBytes(32)
				sealed, err := client.Encrypt(t.Context(), "seal", plaintext)
				if err != nil {
					t.Error(err)
					return
				}
				all[n] = stored{sealed, plaintext}
			}
		})
	}
	group.Wait()
	if t.Failed() {
		t.FailNow()
	}
	return all
}

func TestChecklist39_TwoThousandDifferentSeeds(t *testing.T) {
	onEachKeeper(t, func(t *testing.T, flags []string) {
		p, metrics := metered(t, flags)
		client := clientOf(t, p.endpoint, 15*time.Second)
		all := sealMany(t, client, seedsOfAStorm)
		for _, width := range []int{1, 64} {
			took := openAll(t, client, all, width)
			slices.Sort(took)
			var sum time.Duration
			for _, one := range took {
				sum += one
			}
			rate := float64(len(took)*width) / sum.Seconds()
			t.Logf("%d at a time: %.0f a second, p99 %v", width, rate, took[len(took)*99/100])
		}
		if connections := connectionsOf(t, p); connections > connectionsMax {
			t.Errorf("%d connections are open", connections)
		}
		// The embedded keeper answers so fast that no call waits.
		if calls, _ := counted(t, metrics, "vault_kube_kms_batch_size_count"); calls == 0 && !strings.Contains(flags[0], "local") {
			t.Error("no batch had more than one item")
		}
	})
}

// connectionsMax limits the open connections of unwraps, wraps, key reads and the session.
const connectionsMax = 2 + 8 + 3

// openAll decrypts all objects, this number at a time, and returns the duration of each call.
func openAll(t *testing.T, client service.Service, all []stored, width int) []time.Duration {
	t.Helper()
	took := make([]time.Duration, len(all))
	var group sync.WaitGroup
	for worker := range width {
		group.Go(func() {
			for n := worker; n < len(all); n += width {
				asked := time.Now()
				opened, err := client.Decrypt(t.Context(), "open", asStored(all[n].sealed))
				took[n] = time.Since(asked)
				if err != nil || !bytes.Equal(opened, all[n].plaintext) {
					t.Errorf("seed %d: %v", n, err)
					return
				}
			}
		})
	}
	group.Wait()
	return took
}

// connectionsOf returns the number of open TCP connections of a plugin.
func connectionsOf(t *testing.T, p *plugin) (count int) {
	t.Helper()
	inodes := map[string]bool{}
	fds, err := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", p.Pid()))
	must(t, err)
	for _, fd := range fds {
		if target, err := os.Readlink(fd); err == nil {
			inodes[strings.TrimSuffix(strings.TrimPrefix(target, "socket:["), "]")] = true
		}
	}
	table, err := os.ReadFile("/proc/net/tcp")
	must(t, err)
	for line := range strings.Lines(string(table)) {
		// The tenth field is the inode, the fourth the state; 01 is an established connection.
		if fields := strings.Fields(line); len(fields) > 9 && fields[3] == "01" && inodes[fields[9]] {
			count++
		}
	}
	return count
}

func TestChecklist40_EqualSeedsShareCalls(t *testing.T) {
	t.Parallel()
	tenant := sharedBao(t).tenant(t)
	via := newForwarder(t, tenant.bao.Address)
	via.start(t)
	p, metrics := metered(t, with(tenant.FlagsVia(via.address), patient))
	client := clientOf(t, p.endpoint, patientTimeout)
	plaintext := randomBytes(32)
	sealed := encrypt(t, client, plaintext)
	before := keeperWrites(t, metrics)
	via.hold()
	var group sync.WaitGroup
	for range 64 {
		group.Go(func() { finish(t, client, sealed, plaintext) })
	}
	if !parts.Eventually(startBound, func() bool {
		shared, _ := counted(t, metrics, "vault_kube_kms_coalesced_total")
		return shared == 63
	}) {
		shared, _ := counted(t, metrics, "vault_kube_kms_coalesced_total")
		t.Errorf("%v of 64 calls are shared", shared)
	}
	via.release()
	group.Wait()
	// One request, and possibly one of a proof.
	if calls := keeperWrites(t, metrics) - before; calls > 4 {
		t.Errorf("64 equal calls cost %d requests", calls)
	}
}

// TestChecklist06_OneClientMisbehaves expects that a misbehaving connection does not disturb two others.
func TestChecklist06_OneClientMisbehaves(t *testing.T) {
	onEachPlugin(t, func(t *testing.T, p *plugin) {
		ctx, stop := context.WithCancel(t.Context())
		var group sync.WaitGroup
		misbehave := []func(){
			func() { _ = writeAndClose(p, randomBytes(rand.IntN(2_000))) },
			func() { _ = writeAndClose(p, []byte("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")) },
			func() {
				conn := p.conn(t, grpc.WithAuthority("localhost"))
				short, cancel := context.WithTimeout(ctx, time.Duration(rand.IntN(3_000))*time.Microsecond)
				defer cancel()
				client := kmsapi.NewKeyManagementServiceClient(conn)
				_, _ = client.Encrypt(short, &kmsapi.EncryptRequest{Plaintext: randomBytes(32), Uid: "gone"})
				_ = conn.Close()
			},
		}
		for _, once := range misbehave {
			group.Go(func() {
				for ctx.Err() == nil {
					once()
				}
			})
		}
		for range 2 {
			group.Go(func() {
				client := p.client(t)
				for range 100 {
					roundTrip(t, client, randomBytes(32))
					if _, err := client.Status(t.Context()); err != nil {
						t.Errorf("Status: %v", err)
					}
				}
				stop()
			})
		}
		group.Wait()
		stop()
		p.requireHealthy(t)
	})
}

// TestChecklist06_OneClientDialsWithoutEnd opens connections in a loop and keeps them. It expects that other
// clients lose no call: neither one that connects for each call, nor one whose connection is idle between calls.
func TestChecklist06_OneClientDialsWithoutEnd(t *testing.T) {
	const dials, pause = 4_000, time.Millisecond
	for name, greeting := range map[string]string{
		"and says nothing":               "",
		"and sends the preface":          "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
		"and sends preface and settings": "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00",
		"and talks another protocol":     "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := start(t, localFlags(t))
			var steadyDials atomic.Int64
			dial := func(ctx context.Context, _ string) (net.Conn, error) {
				steadyDials.Add(1)
				return new(net.Dialer).DialContext(ctx, "unix", p.address())
			}
			steady := kmsapi.NewKeyManagementServiceClient(
				p.conn(t, grpc.WithAuthority("localhost"), grpc.WithContextDialer(dial)))
			requireAnswers(t, "the steady client", steady)

			flooded := make(chan struct{})
			go func() {
				defer close(flooded)
				ticker := time.NewTicker(pause)
				defer ticker.Stop()
				for range dials {
					if conn, err := net.Dial("unix", p.address()); err == nil {
						_, _ = conn.Write([]byte(greeting))
						// Read until the server ends the connection.
						go func() { _, _ = io.Copy(io.Discard, conn); _ = conn.Close() }()
					}
					<-ticker.C
				}
			}()
			for round, last := 0, false; !last; round++ {
				select {
				case <-flooded:
					last = true
				default:
				}
				conn := p.conn(t, grpc.WithAuthority("localhost"))
				requireAnswers(t, fmt.Sprintf("round %d: a new client", round), kmsapi.NewKeyManagementServiceClient(conn))
				_ = conn.Close()
				if round%20 == 0 {
					requireAnswers(t, fmt.Sprintf("round %d: the steady client", round), steady)
				}
			}
			if dials := steadyDials.Load(); dials != 1 {
				t.Errorf("the steady client dialled %d times", dials)
			}
			p.requireHealthy(t)
		})
	}
}

// requireAnswers requires that Status answers within the API server's time limit.
func requireAnswers(t *testing.T, who string, client kmsapi.KeyManagementServiceClient) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), callTimeout)
	defer cancel()
	if _, err := client.Status(ctx, &kmsapi.StatusRequest{}, grpc.WaitForReady(true)); err != nil {
		t.Errorf("%s: %v", who, err)
	}
}

func writeAndClose(p *plugin, bytes []byte) error {
	conn, err := net.Dial("unix", p.address())
	if err != nil {
		return err
	}
	_, err = conn.Write(bytes)
	return errors.Join(err, conn.Close())
}

func TestChecklist08_AThousandCallsAreCancelled(t *testing.T) {
	t.Parallel()
	tenant := sharedBao(t).tenant(t)
	p, metrics := metered(t, tenant.Flags())
	client := p.client(t)
	all := sealMany(t, client, 50)
	openAll(t, client, all, 8)
	descriptors := func() int {
		fds, err := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", p.Pid()))
		must(t, err)
		return len(fds)
	}
	before := descriptors()
	for n := range 1_000 {
		ctx, cancel := context.WithTimeout(t.Context(), time.Duration(rand.IntN(1_500))*time.Microsecond)
		_, _ = client.Decrypt(ctx, "cancelled", asStored(all[n%len(all)].sealed))
		cancel()
	}
	if !parts.Eventually(startBound, func() bool { return descriptors() <= before+2 }) {
		t.Errorf("%d descriptors before, %d after", before, descriptors())
	}
	if connections := connectionsOf(t, p); connections > connectionsMax {
		t.Errorf("%d connections are open", connections)
	}
	if waiting, _ := counted(t, metrics, "vault_kube_kms_queue_depth"); waiting != 0 {
		t.Errorf("%v calls still wait", waiting)
	}
	openAll(t, client, all, 8)
	p.requireHealthy(t)
}

// TestChecklist09_AKeeperThatStalls holds every answer of the keeper. It expects that each call ends in time with
// its cause, before the time limit of the client.
func TestChecklist09_AKeeperThatStalls(t *testing.T) {
	t.Parallel()
	tenant := sharedBao(t).tenant(t)
	via := newForwarder(t, tenant.bao.Address)
	via.start(t)
	p := start(t, tenant.FlagsVia(via.address))
	client := p.client(t)
	plaintext := randomBytes(32)
	sealed := encrypt(t, client, plaintext)
	via.hold()
	calls := map[string]func() error{
		"Status":  func() error { _, err := client.Status(t.Context()); return err },
		"Encrypt": func() error { _, err := client.Encrypt(t.Context(), "stalls", plaintext); return err },
		"Decrypt": func() error { _, err := client.Decrypt(t.Context(), "stalls", asStored(sealed)); return err },
	}
	for round := range 3 {
		var group sync.WaitGroup
		for name, call := range calls {
			group.Go(func() {
				asked := parts.StartWatch()
				err := call()
				if asked.Calm() > 2_850*time.Millisecond {
					t.Errorf("round %d: %s takes %v: %v", round, name, asked, err)
				}
				// On an overloaded machine the client's time limit may come first.
				if name == "Status" || asked.Overloaded() && strings.Contains(message(err), "context deadline exceeded") {
					return
				}
				if code := status.Code(err); code != codes.DeadlineExceeded && code != codes.Unavailable {
					t.Errorf("round %d: %s: %v", round, name, err)
				}
				// New connections stall, as open ones do.
				named := err == nil || strings.Contains(message(err), "no answer from") || strings.Contains(message(err), "no connection to")
				if !named {
					t.Errorf("round %d: %s does not name the cause: %v", round, name, err)
				}
			})
		}
		group.Wait()
	}
	via.release()
	if !parts.Eventually(10*time.Second, func() bool {
		_, err := client.Decrypt(t.Context(), "heals", asStored(sealed))
		return err == nil
	}) {
		t.Error("it does not recover within 10 s")
	}
}
