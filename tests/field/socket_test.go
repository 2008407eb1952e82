package field_test

import (
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"vault-kube-kms.test/parts"
)

// TestSocketFileRemoved expects that a removed socket file is bound again within 5 s, and that clients can connect
// and /readyz succeeds then.
func TestSocketFileRemoved(t *testing.T) {
	t.Parallel()
	for name, remove := range map[string]func(path string) error{
		"removed":    os.Remove,
		"moved_away": func(path string) error { return os.Rename(path, path+".old") },
		"with_its_directory": func(path string) error {
			dir := filepath.Dir(path)
			if err := os.RemoveAll(dir); err != nil {
				return err
			}
			return os.Mkdir(dir, 0o755)
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := start(t, localFlags(t))
			must(t, remove(p.path()))
			removed := parts.StartWatch()
			if !parts.Eventually(moveBound+slack, func() bool { return p.acceptsNewConnections(t) && p.isReady() }) {
				t.Errorf("NOT WELL: a new connection works: %v; /readyz is ok: %v", p.acceptsNewConnections(t), p.isReady())
			}
			requireTook(t, removed, moveBound)
			if info, err := os.Stat(p.path()); err == nil && info.Mode() != os.ModeSocket|0o770 {
				t.Errorf("the socket file has mode %v", info.Mode())
			}
			if err := p.works(t.Context()); err != nil {
				t.Errorf("on the open connection: %v", err)
			}
		})
	}
}

// TestSocketDirectoryRemoved removes the directory of the socket file for a while. It expects that /readyz fails until
// the directory is back, and that the socket is bound again within 5 s then.
func TestSocketDirectoryRemoved(t *testing.T) {
	t.Parallel()
	p := start(t, localFlags(t))
	dir := filepath.Dir(p.path())
	info, err := os.Stat(dir)
	must(t, err)
	must(t, os.RemoveAll(dir))
	var code int
	var text string
	if !parts.Eventually(moveBound+slack, func() bool {
		code, text = p.get(p.health + "/readyz")
		return code == http.StatusInternalServerError
	}) {
		t.Errorf("NOT TOLD: no client can connect, and /readyz answers %d %s", code, text)
	}
	if !strings.Contains(text, "socket") {
		t.Errorf("CAUSE NOT TOLD: /readyz answers %s", text)
	}
	if err := p.works(t.Context()); err != nil {
		t.Errorf("on the open connection: %v", err)
	}
	must(t, os.Mkdir(dir, info.Mode().Perm()))
	back := parts.StartWatch()
	if !parts.Eventually(moveBound+slack, func() bool { return p.acceptsNewConnections(t) && p.isReady() }) {
		t.Errorf("NOT WELL: a new connection works: %v; /readyz is ok: %v", p.acceptsNewConnections(t), p.isReady())
	}
	requireTook(t, back, moveBound)
}

// TestSocketFileReplaced puts a foreign file in place of the socket file. It expects that /readyz fails within 5
// s, that the file stays, and that the socket is bound again after the file is gone.
func TestSocketFileReplaced(t *testing.T) {
	t.Parallel()
	for name, place := range map[string]func(t *testing.T, path string){
		"by_a_file":      func(t *testing.T, path string) { must(t, os.WriteFile(path, []byte("keep me"), 0o600)) },
		"by_a_directory": func(t *testing.T, path string) { must(t, os.Mkdir(path, 0o700)) },
		"by_a_link":      func(t *testing.T, path string) { must(t, os.Symlink("nothing", path)) },
		"by_another_server": func(t *testing.T, path string) {
			listener, err := net.Listen("unix", path)
			must(t, err)
			t.Cleanup(func() { _ = listener.Close() })
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := start(t, localFlags(t))
			must(t, os.Remove(p.path()))
			place(t, p.path())
			before, err := os.Lstat(p.path())
			must(t, err)
			if !parts.Eventually(moveBound+slack, func() bool { return !p.isReady() }) {
				t.Error("NOT TOLD: /readyz is ok, and no client can connect")
			}
			if after, err := os.Lstat(p.path()); err != nil || !os.SameFile(before, after) {
				t.Errorf("the file in place of the socket was changed: %v", err)
			}
			// The first line that names the file is the line of the start.
			if !parts.Eventually(moveBound+slack, func() bool { return strings.Count(p.Stdout.String(), p.path()) >= 2 }) {
				t.Errorf("the log does not name %s", p.path())
			}
			must(t, os.Remove(p.path()))
			if !parts.Eventually(moveBound+slack, func() bool { return p.acceptsNewConnections(t) && p.isReady() }) {
				t.Error("NOT WELL: the socket is not bound again")
			}
		})
	}
}

// TestSocketDirectoryMissing expects that the process ends with one line that names the path and the remedy, if
// the socket's directory is missing or a directory has the socket's path.
func TestSocketDirectoryMissing(t *testing.T) {
	t.Parallel()
	path := filepath.Join(shortDir(t), "missing", "kms.sock")
	p := launchOn(t, "unix://"+path, localFlags(t))
	if !p.EndsWithin(startBound) {
		t.Fatal("it runs")
	}
	said := p.Stderr.String()
	if p.ExitCode() == 0 || strings.Count(said, "\n") != 1 || !strings.Contains(said, filepath.Dir(path)) || !strings.Contains(said, "create it") {
		t.Errorf("it ends with %d: %s", p.ExitCode(), said)
	}
}

// TestSocketPathForms expects that each form of the socket's path works.
func TestSocketPathForms(t *testing.T) {
	t.Parallel()
	of := func(length int) func(dir string) string {
		return func(dir string) string { return filepath.Join(dir, strings.Repeat("x", length-len(dir)-1)) }
	}
	for name, c := range map[string]struct {
		path func(dir string) string
		// form returns the path in the form of the flag.
		form func(path string) string
		good bool
	}{
		"107_bytes":   {of(107), func(path string) string { return path }, true},
		"108_bytes":   {of(108), func(path string) string { return path }, false},
		"unix_one":    {of(40), func(path string) string { return "unix:" + path }, false},
		"unix_three":  {of(40), func(path string) string { return "unix://" + path }, true},
		"blank_ahead": {of(40), func(path string) string { return " " + path }, false},
		"relative":    {of(40), func(string) string { return "kms.sock" }, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			path := c.path(shortDir(t))
			if !c.good {
				requireTold(t, refusedStart(t, append(localFlags(t), "--listen-address="+c.form(path))), `listen-address`)
				return
			}
			p := launchForm(t, c.form(path), path, localFlags(t))
			p.waitHealthy(t, "at the start", startBound)
		})
	}
}
