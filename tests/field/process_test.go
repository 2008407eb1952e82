package field_test

import (
	"encoding/binary"
	"fmt"
	"io"
	"maps"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"vault-kube-kms.test/parts"
)

// defaultHangUp makes SIGHUP end a program that does not handle it, even if the tests run under nohup.
var defaultHangUp = wrapper{"env", "--default-signal=HUP"}

// opened counts how often any process has opened each of these files since this call.
func opened(t *testing.T, paths ...string) func() map[string]int {
	t.Helper()
	fd, err := unix.InotifyInit1(unix.IN_NONBLOCK | unix.IN_CLOEXEC)
	must(t, err)
	t.Cleanup(func() { _ = unix.Close(fd) })
	names := map[int32]string{}
	for _, path := range paths {
		watched, err := unix.InotifyAddWatch(fd, path, unix.IN_OPEN)
		must(t, err)
		names[int32(watched)] = path
	}
	counts := map[string]int{}
	return func() map[string]int {
		t.Helper()
		buffer := make([]byte, 64<<10)
		count, err := unix.Read(fd, buffer)
		if err != unix.EAGAIN {
			must(t, err)
		}
		// An event of a watched file has no name behind it.
		for event := buffer[:max(count, 0)]; len(event) > 0; event = event[unix.SizeofInotifyEvent:] {
			counts[names[int32(binary.NativeEndian.Uint32(event))]]++
		}
		return counts
	}
}

// TestHangUpSignal expects that SIGHUP makes the process read its files again and does not end it. Without the signal,
// the process does not open a file that has not changed.
func TestHangUpSignal(t *testing.T) {
	t.Parallel()
	n := newTenant(t)
	// No login reads the secret ID in this time.
	must(t, n.MakeRole(map[string]any{"token_ttl": "1h", "token_max_ttl": "1h"}))
	ca := filepath.Join(shortDir(t), "ca.pem")
	must(t, os.WriteFile(ca, readFile(t, n.Bao.CAFile), 0o600))
	p := start(t, append(withoutFlag(n.Flags(), "--tls-ca-file"), "--tls-ca-file="+ca), defaultHangUp...)
	count := opened(t, n.SecretIDFile, ca)
	// New files may be read several times.
	before := maps.Clone(count())
	quiet := parts.StartWatch()
	if !parts.EventuallyEvery(100*time.Millisecond, startBound, func() bool {
		if now := count(); !maps.Equal(now, before) {
			before, quiet = maps.Clone(now), parts.StartWatch()
		}
		return quiet.Calm() > 3*time.Second
	}) {
		t.Fatal("the files are opened again and again")
	}
	for times := range 3 {
		p.Signal(syscall.SIGHUP)
		for _, path := range []string{n.SecretIDFile, ca} {
			if !parts.Eventually(startBound, func() bool { return count()[path] > before[path] }) {
				t.Errorf("%s is not read again", path)
			}
		}
		before = maps.Clone(count())
		if !parts.Eventually(startBound, func() bool { return strings.Count(p.Printed(), "SIGHUP") > times || !p.Alive() }) {
			t.Error("the signal is not in the log")
		}
		if !p.Alive() {
			t.Fatalf("it has ended: %s", parts.Tail(p.Printed()))
		}
		if !p.acceptsNewConnections(t) {
			t.Error("no client can connect")
		}
		if err := p.works(t.Context()); err != nil {
			t.Errorf("after SIGHUP: %v", err)
		}
	}
	if !p.Stop() || p.ExitCode() != 0 {
		t.Errorf("it ends with %d", p.ExitCode())
	}
	if _, err := os.Lstat(p.path()); !os.IsNotExist(err) {
		t.Errorf("the socket file is left behind: %v", err)
	}
	if tokens := tokensOf(t, n); tokens != 0 {
		t.Errorf("%d tokens are left", tokens)
	}
}

// TestHangUpSignalWithoutTheKeeper expects that SIGHUP does not end the process before its first login, while the
// keeper is down.
func TestHangUpSignalWithoutTheKeeper(t *testing.T) {
	t.Parallel()
	n := newTenant(t)
	p := launch(t, n.FlagsVia(parts.FreeAddress()), defaultHangUp...)
	p.waitTold(t, startBound, `keeper-unreachable`)
	p.Signal(syscall.SIGHUP)
	p.waitTold(t, startBound, `keeper-unreachable`)
	if !p.acceptsNewConnections(t) && !p.Alive() {
		t.Error("it has ended")
	}
	if p.EndsWithin(time.Second) {
		t.Error("it has ended")
	}
}

// TestHangUpSignalBeforeTheSettings expects that SIGHUP does not end the process while it waits for its configuration,
// and that it reads its files again when it runs.
func TestHangUpSignalBeforeTheSettings(t *testing.T) {
	t.Parallel()
	n := newTenant(t)
	pipe := filepath.Join(shortDir(t), "config")
	must(t, unix.Mkfifo(pipe, 0o600))
	p := launch(t, append(n.Flags(), "--config="+pipe), defaultHangUp...)
	// This waits until the process has opened the pipe.
	config, err := os.OpenFile(pipe, os.O_WRONLY, 0)
	must(t, err)
	p.Signal(syscall.SIGHUP)
	if p.EndsWithin(time.Second) {
		t.Fatal("it has ended")
	}
	_, err = config.WriteString("zap-log-level = \"info\"\n")
	must(t, err)
	must(t, config.Close())
	if !parts.Eventually(startBound, func() bool { return strings.Contains(p.Printed(), "SIGHUP") }) {
		t.Error("the signal is not in the log")
	}
	if err := p.works(t.Context()); err != nil {
		t.Errorf("after SIGHUP: %v", err)
	}
}

// piped runs a plugin whose standard output is a pipe. It returns the reading end.
func piped(t *testing.T, size int, flags []string) (*plugin, *os.File) {
	t.Helper()
	fifo := filepath.Join(shortDir(t), "stdout")
	must(t, unix.Mkfifo(fifo, 0o600))
	// The pipe keeps its size while one end is open.
	stalled, err := os.OpenFile(fifo, os.O_RDWR, 0)
	must(t, err)
	_, err = unix.FcntlInt(stalled.Fd(), unix.F_SETPIPE_SZ, size)
	must(t, err)
	read, err := os.OpenFile(fifo, os.O_RDONLY|unix.O_NONBLOCK, 0)
	must(t, err)
	t.Cleanup(func() { _ = read.Close() })
	p := launch(t, flags, "sh", "-c", fmt.Sprintf(`exec "$0" "$@" >%s`, fifo))
	p.waitHealthy(t, "at the start", startBound)
	must(t, stalled.Close())
	return p, read
}

// TestLogReaderStalls stops the reader of standard output, at level debug. It expects that all calls are
// answered, that dropped lines are counted, and that the process ends on SIGTERM.
func TestLogReaderStalls(t *testing.T) {
	t.Parallel()
	// These calls fill the pipe and a queue of reasonable size behind it.
	for size, calls := range map[int]int32{4 << 10: 20_000, 64 << 10: 100_000} {
		t.Run(fmt.Sprintf("%d_bytes", size), func(t *testing.T) {
			t.Parallel()
			p, reader := piped(t, size, append(localFlags(t), "--log-level=debug"))
			var failed, done atomic.Int32
			var group sync.WaitGroup
			for range 8 {
				group.Go(func() {
					for done.Add(1) <= calls && failed.Load() < 3 {
						if err := repeatOnTimeout(func() error { return p.status(t.Context()) }); err != nil {
							failed.Add(1)
							t.Errorf("Status, after %d calls: %v", done.Load(), err)
						}
					}
				})
			}
			group.Wait()
			if err := p.works(t.Context()); err != nil {
				t.Errorf("after %d calls: %v", done.Load(), err)
			}
			if dropped := droppedLines(p); dropped <= 0 {
				t.Errorf("%v log lines are counted as dropped", dropped)
			}
			if t.Failed() {
				// A process that blocks on its log would not end either.
				p.Kill()
				return
			}
			// The reader continues. New lines come after the queue is empty.
			var read parts.Output
			go func() { _, _ = io.Copy(&read, reader) }()
			before := -1
			parts.EventuallyEvery(200*time.Millisecond, startBound, func() bool {
				last := before
				before = len(read.String())
				return before == last
			})
			p.Signal(syscall.SIGTERM)
			if !parts.Eventually(startBound, func() bool { return strings.Contains(read.String()[before:], "SIGTERM") }) {
				t.Error("no new line comes after the pipe is read")
			}
			if !p.EndsWithin(parts.StopBound) || p.ExitCode() != 0 {
				t.Errorf("it ends with %d", p.ExitCode())
			}
		})
	}
}

// TestLogReaderStallsAtTheEnd expects that the process ends on SIGTERM while its standard output is not read.
func TestLogReaderStallsAtTheEnd(t *testing.T) {
	t.Parallel()
	p, _ := piped(t, 4<<10, append(localFlags(t), "--log-level=debug"))
	for range 200 {
		if err := p.works(t.Context()); err != nil {
			t.Errorf("a call fails: %v", err)
			break
		}
	}
	if !p.Stop() {
		t.Error("it does not end")
	}
}

var droppedMetric = regexp.MustCompile(`(?m)^(\w*log\w*drop\w*|\w*drop\w*log\w*)(\{[^}]*\})? ([0-9.e+]+)$`)

// droppedLines returns the metric of dropped log lines, or -1 when it is absent.
func droppedLines(p *plugin) float64 {
	_, text := p.get(p.inside + "/metrics")
	sum := -1.0
	for _, found := range droppedMetric.FindAllStringSubmatch(text, -1) {
		if count, err := strconv.ParseFloat(found[3], 64); err == nil {
			sum = max(sum, 0) + count
		}
	}
	return sum
}

// TestLogReaderGoesAway expects that calls are answered after the reader of standard output has ended.
func TestLogReaderGoesAway(t *testing.T) {
	t.Parallel()
	p := launch(t, append(localFlags(t), "--log-level=debug"), "bash", "-c", `exec "$0" "$@" > >(head -c 100 >/dev/null)`)
	p.waitHealthy(t, "at the start", startBound)
	for range 100 {
		if err := p.works(t.Context()); err != nil {
			t.Fatalf("a call fails: %v", err)
		}
	}
	if !p.Alive() {
		t.Error("it has ended")
	}
}

// notified listens at the notification socket of a systemd service.
func notified(t *testing.T) (*net.UnixConn, string) {
	t.Helper()
	path := filepath.Join(shortDir(t), "notify")
	listener, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	must(t, err)
	t.Cleanup(func() { _ = listener.Close() })
	return listener, path
}

// TestWatchdogOfSystemd expects that the keep-alive for WatchdogSec= comes in time, with and without the keeper,
// and without calls.
func TestWatchdogOfSystemd(t *testing.T) {
	t.Parallel()
	for name, flags := range map[string]func(t *testing.T) []string{
		"well":               localFlags,
		"without_the_keeper": func(t *testing.T) []string { return newTenant(t).FlagsVia(parts.FreeAddress()) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			listener, path := notified(t)
			const period = 4 * time.Second
			launch(t, flags(t), "env", "NOTIFY_SOCKET="+path, fmt.Sprintf("WATCHDOG_USEC=%d", period.Microseconds()))
			heard, buffer := 0, make([]byte, 4_096)
			must(t, listener.SetReadDeadline(time.Now().Add(parts.Stretched(startBound))))
			for heard < 3 {
				count, err := listener.Read(buffer)
				if err != nil {
					t.Fatalf("NO KEEP-ALIVE: %d were heard: %v", heard, err)
				}
				said := string(buffer[:count])
				if strings.Contains(said, "READY=1") || strings.Contains(said, "WATCHDOG=1") {
					must(t, listener.SetReadDeadline(time.Now().Add(parts.Stretched(period))))
				}
				heard += strings.Count(said, "WATCHDOG=1")
			}
		})
	}
}

// TestWatchdogOfAnotherProcess expects no keep-alive when WATCHDOG_PID names another process.
func TestWatchdogOfAnotherProcess(t *testing.T) {
	t.Parallel()
	listener, path := notified(t)
	p := launch(t, localFlags(t), "env", "NOTIFY_SOCKET="+path, "WATCHDOG_USEC=400000", fmt.Sprintf("WATCHDOG_PID=%d", os.Getpid()))
	p.waitHealthy(t, "at the start", startBound)
	buffer := make([]byte, 4_096)
	must(t, listener.SetReadDeadline(time.Now().Add(2*time.Second)))
	for {
		count, err := listener.Read(buffer)
		if err != nil {
			return
		}
		if strings.Contains(string(buffer[:count]), "WATCHDOG=1") {
			t.Fatal("it sends keep-alives for another process")
		}
	}
}
