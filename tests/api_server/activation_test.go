package apiserver_test

import (
	"bytes"
	"context"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"k8s.io/kms/pkg/service"

	"vault-kube-kms.test/parts"
)

// activate starts a plugin as systemd does: with sockets that listen already, from descriptor 3 on.
func activate(t *testing.T, endpoint string, sockets []*os.File, flags ...string) *plugin {
	t.Helper()
	// The plugin keeps the id of the shell, which LISTEN_PID must name.
	pass := `count=$1; shift; LISTEN_PID=$$ LISTEN_FDS=$count exec "$@"`
	count := strconv.Itoa(len(sockets))
	return launchBy(t, parts.Way{Passed: sockets}, endpoint, flags, "sh", "-ec", pass, "-", count)
}

// systemSocket listens as systemd does, with its own mode.
func systemSocket(t *testing.T, path string) *os.File {
	t.Helper()
	listener, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	must(t, err)
	// The file stays, and so does another descriptor of the socket.
	listener.SetUnlinkOnClose(false)
	defer listener.Close()
	must(t, os.Chmod(path, 0o750))
	file, err := listener.File()
	must(t, err)
	t.Cleanup(func() { _ = file.Close() })
	return file
}

// TestANewPluginBehindSystemdsSocketTakesOverWithoutARefusedDial replaces plugins behind systemd's socket. It
// expects that no connection is refused, that no call of the API server's client fails, that the socket file and
// its mode stay, and that no other file appears beside it.
func TestANewPluginBehindSystemdsSocketTakesOverWithoutARefusedDial(t *testing.T) {
	t.Parallel()
	const changes, clients = 8, 4
	dir := shortDir(t)
	endpoint := "unix://" + filepath.Join(dir, "kms.sock")
	socket := systemSocket(t, dialled(endpoint))
	before := lstat(t, dialled(endpoint))
	flags := localFlags(t)
	ctx, stop := context.WithCancel(t.Context())
	var group sync.WaitGroup
	defer group.Wait()
	defer stop()
	var dials, calls atomic.Int64
	group.Go(func() {
		for ctx.Err() == nil {
			conn, err := net.Dial("unix", dialled(endpoint))
			if err != nil {
				t.Errorf("a dial was refused: %v", err)
				return
			}
			_ = conn.Close()
			dials.Add(1)
			// The backlog holds 4096 connections that are not accepted yet.
			pause(ctx, 5*time.Millisecond)
		}
	})
	for range clients {
		// This limit is longer than any change on a busy machine, because the test is about lost calls.
		client := clientOf(t, endpoint, 2*startBound)
		group.Go(func() {
			for ctx.Err() == nil && tookOver(t, client) {
				calls.Add(2)
			}
		})
	}
	current := activate(t, endpoint, []*os.File{socket}, flags...)
	for change := range changes {
		before := calls.Load()
		if !parts.Eventually(startBound, func() bool { return calls.Load() > before+clients || t.Failed() }) {
			t.Errorf("change %d: calls are no longer answered", change)
		}
		if t.Failed() {
			return
		}
		// Every second plugin is killed, as in a crash.
		if change%2 == 0 && !current.Stop() {
			t.Error("the plugin did not end on SIGTERM")
		} else if change%2 == 1 {
			current.Kill()
		}
		current = activate(t, endpoint, []*os.File{socket}, flags...)
	}
	current.waitHealthy(t)
	if !strings.Contains(current.Stdout.String(), "socket taken over from systemd") {
		t.Errorf("the log does not say whose socket it is: %s", current.Printed())
	}
	if after := lstat(t, dialled(endpoint)); after != before {
		t.Errorf("the socket was %v and has become %v", before, after)
	}
	entries, err := os.ReadDir(dir)
	if must(t, err); len(entries) != 1 {
		t.Errorf("the plugin wrote beside the socket: %v", entries)
	}
	if dials.Load() < changes {
		t.Errorf("only %d dials", dials.Load())
	}
}

// tookOver reports whether Encrypt and Decrypt succeed. It repeats a call once if the plugin was killed during
// it, as callers in an API server do.
func tookOver(t *testing.T, client service.Service) bool {
	plaintext := randomBytes(32)
	sealed, err := client.Encrypt(t.Context(), "taken over", plaintext)
	if err != nil {
		sealed, err = client.Encrypt(t.Context(), "taken over", plaintext)
	}
	if err != nil {
		t.Errorf("Encrypt: %v", err)
		return false
	}
	opened, err := client.Decrypt(t.Context(), "taken over", asStored(sealed))
	if err != nil {
		opened, err = client.Decrypt(t.Context(), "taken over", asStored(sealed))
	}
	if err != nil || !bytes.Equal(opened, plaintext) {
		t.Errorf("Decrypt: %v", err)
		return false
	}
	return true
}

// TestOnlyTheSocketOfTheSettingsIsAcceptedFromSystemd expects exactly one socket at the configured
// address from systemd. Otherwise the error names the passed descriptor and a remedy.
func TestOnlyTheSocketOfTheSettingsIsAcceptedFromSystemd(t *testing.T) {
	t.Parallel()
	dir := shortDir(t)
	one := systemSocket(t, filepath.Join(dir, "one.sock"))
	two := systemSocket(t, filepath.Join(dir, "two.sock"))
	plain, err := os.Create(filepath.Join(dir, "file"))
	must(t, err)
	defer plain.Close()
	datagram := datagrams(t, filepath.Join(dir, "datagram.sock"))
	packets, err := datagram.File()
	must(t, err)
	defer packets.Close()
	endpoint := "unix://" + filepath.Join(dir, "one.sock")
	flags := localFlags(t)
	for name, trial := range map[string]struct {
		passed []*os.File
		say    string
	}{
		"two sockets":     {[]*os.File{one, two}, "systemd passed 2 sockets (unknown, unknown); leave one ListenStream="},
		"another address": {[]*os.File{two}, "two.sock, but --listen-address is " + endpoint + "; set ListenStream="},
		"a plain file":    {[]*os.File{plain}, "fd 3 is not a socket; use one ListenStream="},
		"datagrams":       {[]*os.File{packets}, "fd 3 is not a valid unix stream socket; use one ListenStream="},
	} {
		p := activate(t, endpoint, trial.passed, flags...)
		if !p.EndsWithin(startBound) || p.ExitCode() != 1 {
			t.Errorf("%s: the plugin does not end with 1", name)
		}
		last := p.Stderr.String()
		if !strings.Contains(last, "inherited-socket: ") || !strings.Contains(last, trial.say) {
			t.Errorf("%s: the error is %s", name, last)
		}
	}
	if mode := lstat(t, filepath.Join(dir, "one.sock")); mode != os.ModeSocket|0o750 {
		t.Errorf("the socket has become %v", mode)
	}
}

// TestARemovedSocketOfSystemdIsReported expects that the plugin does not bind the removed file of systemd's
// socket, and that the log and /readyz name the command to type.
func TestARemovedSocketOfSystemdIsReported(t *testing.T) {
	t.Parallel()
	endpoint := newEndpoint(t)
	socket := systemSocket(t, dialled(endpoint))
	p := activate(t, endpoint, []*os.File{socket}, localFlags(t)...)
	p.waitHealthy(t)
	must(t, os.Remove(dialled(endpoint)))
	told := func() bool { return strings.Contains(p.Printed(), "run `systemctl restart` for the socket unit") }
	if !parts.Eventually(startBound, told) {
		t.Errorf("the log does not report it: %s", p.Printed())
	}
	if _, err := os.Lstat(dialled(endpoint)); !os.IsNotExist(err) {
		t.Errorf("a socket was bound in its place: %v", err)
	}
}

// TestASocketOfSystemdAnswersWhileTheKeeperHangs expects that the first call waits for the first read of the key,
// but not when the keeper hangs.
func TestASocketOfSystemdAnswersWhileTheKeeperHangs(t *testing.T) {
	t.Parallel()
	endpoint := newEndpoint(t)
	socket := systemSocket(t, dialled(endpoint))
	tenant := sharedBao(t).tenant(t)
	via := newForwarder(t, tenant.bao.Address)
	via.start(t)
	via.hold()
	defer via.release()
	activate(t, endpoint, []*os.File{socket}, tenant.FlagsVia(via.address)...)
	_, err := clientOf(t, endpoint, 2*startBound).Status(t.Context())
	if !strings.HasPrefix(message(err), "keeper-timeout: ") {
		t.Errorf("Status: %v", err)
	}
}
