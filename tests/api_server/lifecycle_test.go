package apiserver_test

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"k8s.io/kms/pkg/service"

	"vault-kube-kms.test/parts"
)

// Not parallel, because it measures the start time of the process.
func TestChecklist43_TheSocketExistsBeforeTheKeeperAnswers(t *testing.T) {
	tenant := sharedBao(t).tenant(t)
	via := newForwarder(t, tenant.bao.Address)
	endpoint := newEndpoint(t)
	started := parts.StartWatch()
	p := launch(t, endpoint, tenant.FlagsVia(via.address))
	p.waitAccepts(t)
	if started.Calm() > time.Second {
		t.Errorf("the socket accepts after %v", started)
	}
	client := p.client(t)
	asked := parts.StartWatch()
	answer, err := client.Status(t.Context())
	if err == nil || asked.Calm() > statusBound {
		t.Errorf("without the keeper Status answers %v, %v after %v", answer, err, asked)
	}
	via.start(t)
	back := parts.StartWatch()
	p.waitHealthy(t)
	if back.Calm() > 10*time.Second {
		t.Errorf("healthy %v after the keeper came back", back)
	}
	roundTrip(t, client, randomBytes(32))
}

func TestChecklist44_TheAPIServerStartsFirst(t *testing.T) {
	onEachKeeper(t, func(t *testing.T, flags []string) {
		endpoint := newEndpoint(t)
		client := clientOf(t, endpoint, callTimeout)
		if answer, err := client.Status(t.Context()); err == nil {
			t.Fatalf("Status without a plugin: %v", answer)
		}
		launch(t, endpoint, flags)
		if !parts.Eventually(startBound, func() bool {
			answer, err := client.Status(t.Context())
			return err == nil && answer.Healthz == "ok"
		}) {
			t.Fatalf("not healthy after %v", startBound)
		}
		roundTrip(t, client, randomBytes(32))
	})
}

func TestChecklist45_AStaleSocketIsReplaced(t *testing.T) {
	onEachKeeper(t, func(t *testing.T, flags []string) {
		first := start(t, flags)
		client := first.client(t)
		plaintext := randomBytes(32)
		sealed := encrypt(t, client, plaintext)
		first.Kill()
		if mode := lstat(t, first.address()); mode.Type() != os.ModeSocket {
			t.Fatalf("the socket file was removed: %v", mode)
		}
		second := launch(t, first.endpoint, flags)
		second.waitHealthy(t)
		requireOpens(t, second.client(t), sealed, plaintext)
	})
}

func TestChecklist46_ASecondPluginKeepsALiveSocket(t *testing.T) {
	for name, endpoint := range map[string]func(t *testing.T) string{
		"file":     newEndpoint,
		"abstract": func(*testing.T) string { return "unix:///@vkk-" + parts.RandomName() },
	} {
		t.Run(name, func(t *testing.T) {
			onEachKeeper(t, func(t *testing.T, flags []string) {
				first := launch(t, endpoint(t), flags)
				first.waitHealthy(t)
				client := first.client(t)
				second := launch(t, first.endpoint, flags)
				if !second.EndsWithin(stopBound) {
					t.Fatal("the second one runs too")
				}
				if second.ExitCode() == 0 || !strings.Contains(second.Stderr.String(), "in use") {
					t.Errorf("the second one ends with %d: %s", second.ExitCode(), &second.Stderr)
				}
				roundTrip(t, client, randomBytes(32))
				first.requireHealthy(t)
			})
		})
	}
}

func TestChecklist47_AFileThatIsNotASocketIsNeverDeleted(t *testing.T) {
	t.Parallel()
	flags := localFlags(t)
	for name, create := range map[string]func(path string) error{
		"a file":      func(path string) error { return os.WriteFile(path, []byte("keep me"), 0o600) },
		"a directory": func(path string) error { return os.Mkdir(path, 0o700) },
		"a link to nothing": func(path string) error {
			return os.Symlink("nothing", path)
		},
		"a link to a socket": func(path string) error {
			listener, err := net.Listen("unix", path+".other")
			if err != nil {
				return err
			}
			listener.(*net.UnixListener).SetUnlinkOnClose(false)
			_ = listener.Close()
			return os.Symlink(path+".other", path)
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			endpoint := newEndpoint(t)
			path := dialled(endpoint)
			if err := create(path); err != nil {
				t.Fatal(err)
			}
			before := listing(t, filepath.Dir(path))
			p := launch(t, endpoint, flags)
			if !p.EndsWithin(stopBound) {
				t.Fatal("it runs")
			}
			if p.ExitCode() == 0 || !strings.Contains(p.Stderr.String(), path) {
				t.Errorf("it ends with %d: %s", p.ExitCode(), &p.Stderr)
			}
			if after := listing(t, filepath.Dir(path)); after != before {
				t.Errorf("the directory had\n%sand now has\n%s", before, after)
			}
		})
	}
}

func TestChecklist48_TheModeIsRightFromTheFirstMoment(t *testing.T) {
	t.Parallel()
	flags := localFlags(t)
	for _, umask := range []string{"000", "077"} {
		t.Run("umask "+umask, func(t *testing.T) {
			t.Parallel()
			endpoint := newEndpoint(t)
			path := dialled(endpoint)
			begun, stop, seen := make(chan bool), make(chan bool), make(chan map[os.FileMode]int)
			go func() {
				modes := map[os.FileMode]int{}
				close(begun)
				for last := false; !last; {
					select {
					case <-stop:
						last = true
					default:
					}
					if info, err := os.Lstat(path); err == nil {
						modes[info.Mode()]++
					}
				}
				seen <- modes
			}()
			<-begun
			p := launch(t, endpoint, flags, "/bin/sh", "-c", "umask "+umask+`; exec "$0" "$@"`)
			p.waitAccepts(t)
			close(stop)
			modes := <-seen
			if modes[os.ModeSocket|0o770] == 0 || len(modes) != 1 {
				t.Errorf("seen: %v", modes)
			}
			if found := listing(t, filepath.Dir(path)); strings.Count(found, "\n") != 1 {
				t.Errorf("files are left: %s", found)
			}
		})
	}
}

func TestChecklist48_APathThatIsTooLongIsNamed(t *testing.T) {
	t.Parallel()
	path := filepath.Join(shortDir(t), strings.Repeat("x", 107))
	p := launch(t, "unix://"+path, localFlags(t))
	if !p.EndsWithin(stopBound) {
		t.Fatal("it runs")
	}
	told := p.Stderr.String()
	if p.ExitCode() != 64 || !strings.Contains(told, "listen-address") || !strings.Contains(told, "107") {
		t.Errorf("it ends with %d: %s", p.ExitCode(), told)
	}
}

func TestChecklist49_CallsInFlightFinish(t *testing.T) {
	t.Parallel()
	tenant := sharedBao(t).tenant(t)
	via := newForwarder(t, tenant.bao.Address)
	via.start(t)
	p := start(t, with(tenant.FlagsVia(via.address), patient))
	client := clientOf(t, p.endpoint, patientTimeout)
	plaintext := randomBytes(32)
	sealed := encrypt(t, client, plaintext)

	const calls = 5
	via.hold()
	var group sync.WaitGroup
	group.Go(func() { finish(t, client, sealed, plaintext) })
	// Wraps never share a call, unlike unwraps, so the test sees each one.
	for range calls - 1 {
		group.Go(func() {
			if _, err := client.Encrypt(t.Context(), "in flight", plaintext); err != nil {
				t.Errorf("a call that was running: %v", err)
			}
		})
	}
	if !parts.Eventually(startBound, func() bool { return via.waiting() >= calls }) {
		t.Fatalf("only %d calls are running", via.waiting())
	}
	asked := parts.StartWatch()
	p.Signal(syscall.SIGTERM)
	if !parts.Eventually(callTimeout, func() bool { return strings.Contains(p.Stdout.String(), "SIGTERM") }) {
		t.Error("the signal was not noticed")
	}
	via.release()
	group.Wait()
	if !p.EndsWithin(stopBound) || p.ExitCode() != 0 {
		t.Errorf("it ends with %d", p.ExitCode())
	}
	// The limits are five seconds for the calls and one for the token.
	if asked.Calm() > 7*time.Second {
		t.Errorf("it ends after %v", asked)
	}
	if _, err := os.Lstat(p.address()); !os.IsNotExist(err) {
		t.Errorf("the socket file is left: %v", err)
	}
}

func finish(t *testing.T, client service.Service, sealed *service.EncryptResponse, plaintext []byte) {
	opened, err := client.Decrypt(t.Context(), "in flight", asStored(sealed))
	if err != nil || string(opened) != string(plaintext) {
		t.Errorf("a call that was running: %v", err)
	}
}

func TestChecklist49_ASuccessorsSocketStays(t *testing.T) {
	onEachPlugin(t, func(t *testing.T, p *plugin) {
		path := p.address()
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
		successor, err := net.Listen("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		defer successor.Close()
		if !p.Stop() || p.ExitCode() != 0 {
			t.Errorf("it ends with %d", p.ExitCode())
		}
		if mode := lstat(t, path); mode.Type() != os.ModeSocket {
			t.Errorf("the successor's socket has become %v", mode)
		}
	})
}

func lstat(t *testing.T, path string) os.FileMode {
	t.Helper()
	info, err := os.Lstat(path)
	if err != nil {
		t.Fatal(err)
	}
	return info.Mode()
}

// listing returns the names, modes and contents of all files of a directory.
func listing(t *testing.T, dir string) string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var text strings.Builder
	for _, entry := range entries {
		path := filepath.Join(dir, entry.Name())
		text.WriteString(lstat(t, path).String() + " " + entry.Name())
		switch {
		case entry.Type().IsRegular():
			content, _ := os.ReadFile(path)
			text.WriteString(": " + string(content))
		case entry.Type() == os.ModeSymlink:
			target, _ := os.Readlink(path)
			text.WriteString(" -> " + target)
		}
		text.WriteString("\n")
	}
	return text.String()
}
