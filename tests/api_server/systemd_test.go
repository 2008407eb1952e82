package apiserver_test

import (
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"vault-kube-kms.test/parts"
	"vault-kube-kms.test/suite"
)

// datagrams listens at a notification socket, as systemd does.
func datagrams(t *testing.T, path string) *net.UnixConn {
	t.Helper()
	listener, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	must(t, err)
	t.Cleanup(func() { _ = listener.Close() })
	return listener
}

// heard reads datagrams until one contains the text.
func heard(t *testing.T, listener *net.UnixConn, text string) string {
	t.Helper()
	must(t, listener.SetReadDeadline(time.Now().Add(parts.Stretched(startBound))))
	buffer := make([]byte, 64*1024)
	for {
		count, err := listener.Read(buffer)
		if err != nil {
			t.Fatalf("no datagram contains %q: %v", text, err)
		}
		if said := string(buffer[:count]); strings.Contains(said, text) {
			return said
		}
	}
}

// TestSystemdIsNotifiedWhenTheSocketIsBound expects READY when the socket is bound, because an API server must be
// able to start without the keeper.
func TestSystemdIsNotifiedWhenTheSocketIsBound(t *testing.T) {
	t.Parallel()
	socket := filepath.Join(shortDir(t), "notify")
	listener := datagrams(t, socket)
	tenant := sharedBao(t).tenant(t)
	flags := tenant.FlagsVia(parts.FreeAddress())
	p := launch(t, newEndpoint(t), flags, "env", "NOTIFY_SOCKET="+socket)
	heard(t, listener, "READY=1")
	if _, err := os.Stat(p.address()); err != nil {
		t.Errorf("ready without a socket: %v", err)
	}
	if !p.Stop() {
		t.Error("the plugin did not end on SIGTERM")
	}
	heard(t, listener, "STOPPING=1")
}

// TestTheJournalHasTheLinesOfAProcessStartedByHand expects the lines of a process in the journal, if a person starts it in a
// terminal of a systemd host.
func TestTheJournalHasTheLinesOfAProcessStartedByHand(t *testing.T) {
	if !suite.Apart(t, unix.CLONE_NEWNS) {
		return
	}
	// The mounts below exist only in this namespace.
	must(t, unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""))
	must(t, unix.Mount("tmpfs", "/run", "tmpfs", 0, ""))
	must(t, os.MkdirAll("/run/systemd/journal", 0o755))
	journal := datagrams(t, "/run/systemd/journal/socket")
	args := append([]string{needed(t, "PROVIDER")}, localFlags(t)...)
	endpoint := newEndpoint(t)
	args = append(args, "--listen-address="+endpoint, "--audit-log=journal", "--health-port=0", "--metrics-port=0")
	cmd := parts.Command(args...)
	cmd.Stdout = openTerminal(t)
	must(t, cmd.Start())
	entry := heard(t, journal, "socket bound")
	_, _ = clientOf(t, endpoint, callTimeout).Encrypt(t.Context(), "uid-1", randomBytes(32))
	audited := heard(t, journal, `"audit":"Encrypt"`)
	if !strings.Contains(audited, "SYSLOG_IDENTIFIER=vault-kube-kms-audit") {
		t.Errorf("an entry of the audit log under another identifier: %q", audited)
	}
	must(t, cmd.Process.Signal(syscall.SIGTERM))
	must(t, cmd.Wait())
	for _, field := range []string{"SYSLOG_IDENTIFIER", "vault-kube-kms", "PRIORITY"} {
		if !strings.Contains(entry, field) {
			t.Errorf("an entry without %s: %q", field, entry)
		}
	}
}

// openTerminal opens a pseudo-terminal and discards its output.
func openTerminal(t *testing.T) *os.File {
	t.Helper()
	behind, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	must(t, err)
	t.Cleanup(func() { _ = behind.Close() })
	must(t, unix.IoctlSetPointerInt(int(behind.Fd()), unix.TIOCSPTLCK, 0))
	number, err := unix.IoctlGetInt(int(behind.Fd()), unix.TIOCGPTN)
	must(t, err)
	terminal, err := os.OpenFile(fmt.Sprintf("/dev/pts/%d", number), os.O_RDWR|unix.O_NOCTTY, 0)
	must(t, err)
	t.Cleanup(func() { _ = terminal.Close() })
	go func() { _, _ = io.Copy(io.Discard, behind) }()
	return terminal
}
