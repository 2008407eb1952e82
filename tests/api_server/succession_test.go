package apiserver_test

import (
	"bytes"
	"context"
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"vault-kube-kms.test/parts"
)

// onEachFileSystem runs a test with a socket on a disk and with a socket in memory. ext4 gives the inode number
// of a removed file to the next file. tmpfs does not.
func onEachFileSystem(t *testing.T, test func(t *testing.T, endpoint string)) {
	t.Parallel()
	for name, place := range map[string]string{"disk": "/var/tmp", "memory": "/dev/shm"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir, err := os.MkdirTemp(place, "vkk")
			must(t, err)
			t.Cleanup(func() { _ = os.RemoveAll(dir) })
			test(t, "unix://"+filepath.Join(dir, "kms.sock"))
		})
	}
}

// TestASuccessorThatStartsDuringTheDrainKeepsItsSocket expects that a plugin which still runs a call does not
// remove the socket of its successor.
func TestASuccessorThatStartsDuringTheDrainKeepsItsSocket(t *testing.T) {
	onEachFileSystem(t, func(t *testing.T, endpoint string) {
		tenant := sharedBao(t).tenant(t)
		via := newForwarder(t, tenant.bao.Address)
		via.start(t)
		first := launch(t, endpoint, tenant.FlagsVia(via.address))
		first.waitHealthy(t)
		client := first.client(t)
		via.hold()
		held := make(chan struct{})
		go func() {
			defer close(held)
			_, _ = client.Encrypt(t.Context(), "in hand", randomBytes(32))
		}()
		if !parts.Eventually(startBound, func() bool { return via.waiting() >= 1 }) {
			t.Fatal("no call is running")
		}
		first.Signal(syscall.SIGTERM)
		if !parts.Eventually(startBound, func() bool {
			_, err := os.Lstat(first.address())
			return errors.Is(err, os.ErrNotExist)
		}) {
			t.Fatal("the socket stays")
		}
		second := launch(t, endpoint, tenant.Flags())
		second.waitAccepts(t)
		via.release()
		<-held
		if !first.EndsWithin(startBound) {
			t.Fatal("the first plugin does not end")
		}
		if mode := lstat(t, second.address()); mode.Type() != os.ModeSocket {
			t.Errorf("the successor's socket has become %v", mode)
		}
		second.waitHealthy(t)
	})
}

// TestPluginsThatChangePlacesLoseNoCall starts each plugin at one address while the one before it stops. It
// expects that the socket file stays, and that no call of new connections fails.
func TestPluginsThatChangePlacesLoseNoCall(t *testing.T) {
	onEachFileSystem(t, func(t *testing.T, endpoint string) {
		const changes, clients = 12, 4
		flags := localFlags(t)
		current := launch(t, endpoint, flags)
		current.waitHealthy(t)
		ctx, stop := context.WithCancel(t.Context())
		var group sync.WaitGroup
		defer group.Wait()
		defer stop()
		var calls atomic.Int64
		for range clients {
			// This limit is longer than any change, because the test is about lost calls and not about speed.
			client := clientOf(t, endpoint, 2*startBound)
			group.Go(func() {
				for ctx.Err() == nil {
					plaintext := randomBytes(32)
					sealed, err := client.Encrypt(t.Context(), "changes", plaintext)
					if err != nil {
						t.Errorf("Encrypt: %v", err)
						return
					}
					opened, err := client.Decrypt(t.Context(), "changes", asStored(sealed))
					if err != nil || !bytes.Equal(opened, plaintext) {
						t.Errorf("Decrypt: %v", err)
						return
					}
					calls.Add(2)
				}
			})
		}
		for change := range changes {
			current = succeed(t, current)
			before := calls.Load()
			if !parts.Eventually(startBound, func() bool { return calls.Load() > before || t.Failed() }) {
				t.Errorf("change %d: calls are no longer answered", change)
			}
			if t.Failed() {
				return
			}
		}
	})
}

// succeed stops a plugin and starts the next one at its address at the same time. It first holds the lock on the
// directory, as a third process could. After its release, the removal of the old socket and the bind of the new
// one compete for the lock, so both orders occur.
func succeed(t *testing.T, former *plugin) *plugin {
	t.Helper()
	directory, err := os.Open(filepath.Dir(former.address()))
	must(t, err)
	defer directory.Close()
	// The plugins wait for the lock, and hold it only for a short time.
	must(t, syscall.Flock(int(directory.Fd()), syscall.LOCK_EX))
	former.Signal(syscall.SIGTERM)
	if !parts.Eventually(startBound, func() bool { return !former.accepts() }) {
		t.Fatal("the former plugin does not stop listening")
	}
	next := launch(t, former.endpoint, former.flags)
	pause(t.Context(), time.Duration(rand.IntN(500))*time.Millisecond)
	must(t, directory.Close())
	bound := func() bool { return strings.Contains(next.Stdout.String(), "socket bound") }
	if !parts.Eventually(startBound, func() bool { return !next.Alive() || bound() }) || !bound() {
		t.Fatalf("no successor serves: %s", next.Printed())
	}
	if !former.EndsWithin(startBound) {
		t.Fatal("the former plugin does not end")
	}
	if mode := lstat(t, next.address()); mode.Type() != os.ModeSocket {
		t.Errorf("the successor's socket has become %v", mode)
	}
	return next
}
