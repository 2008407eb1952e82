package packages_test

import (
	"fmt"
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

// bound limits the time of one step in a booted machine, on a busy host.
const bound = 20 * time.Second

// machine is a Debian that systemd has booted in a container. It shares the network namespace of the test.
type machine struct {
	nspawn *parts.Process
	root   string
	// init is the id of its first process in the test's namespace.
	init int
}

// apart runs the test in its own namespaces. The test is the first process of its namespace, so its end also ends
// the container. Files that systemd-nspawn leaves in /run exist only in these namespaces.
func apart(t *testing.T) bool {
	t.Helper()
	if !suite.ApartFrom(t, unix.CLONE_NEWNS|unix.CLONE_NEWPID) {
		return false
	}
	suite.Must(t, unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""))
	suite.Must(t, unix.Mount("proc", "/proc", "proc", 0, ""))
	suite.Must(t, unix.Mount("tmpfs", "/run", "tmpfs", 0, ""))
	return true
}

// boot boots the system that is unpacked in a folder, for a test in its own namespaces.
func boot(t *testing.T, root string) *machine {
	t.Helper()
	groups := groups(t)
	enter := `for group in $1; do echo $$ > "$group/cgroup.procs"; done; shift; exec "$@"`
	nspawn, err := parts.Way{}.Start("nspawn", []string{
		"sh", "-ec", enter, "-", strings.Join(groups, " "),
		"systemd-nspawn", "--quiet", "--directory=" + root, "--boot", "--register=no", "--keep-unit",
		"--link-journal=no", "--resolv-conf=off", "--timezone=off", "--console=pipe",
		// Its filter is older than the provider's sandbox.
		"--system-call-filter=landlock_create_ruleset landlock_add_rule landlock_restrict_self",
	})
	suite.Must(t, err)
	m := &machine{nspawn: nspawn, root: root}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("nspawn printed %s", parts.Tail(nspawn.Printed()))
			log, _ := m.attempt("journalctl", "--no-pager", "--lines=200", "--output=short-monotonic")
			t.Logf("the journal:\n%s", log)
		}
		// The first SIGTERM shuts the container down. A second one ends it at once.
		nspawn.Signal(syscall.SIGTERM)
		if !nspawn.EndsWithin(bound) {
			t.Error("the container did not end on SIGTERM")
			nspawn.Kill()
		}
		for _, group := range groups {
			removeGroup(t, group)
		}
	})
	if !parts.Eventually(bound, m.found) {
		t.Fatalf("no container: %s", nspawn.Printed())
	}
	var last string
	if !parts.Eventually(bound, func() bool {
		last, _ = m.attempt("systemctl", "is-system-running")
		return strings.HasPrefix(last, "running") || strings.HasPrefix(last, "degraded")
	}) {
		t.Fatalf("the machine does not boot: %s", last)
	}
	return m
}

// groups makes a control group in each hierarchy that systemd uses. The container makes its groups below these,
// apart from all others.
func groups(t *testing.T) (made []string) {
	t.Helper()
	// systemd-nspawn also makes the group of one hierarchy in the other hierarchy.
	name := "vkk-" + parts.RandomName()
	for _, line := range strings.Split(strings.TrimSpace(read(t, "/proc/self/cgroup")), "\n") {
		_, rest, _ := strings.Cut(line, ":")
		controllers, path, _ := strings.Cut(rest, ":")
		var place string
		switch {
		case controllers == "name=systemd":
			place = "/sys/fs/cgroup/systemd"
		case controllers == "" && exists("/sys/fs/cgroup/unified"):
			place = "/sys/fs/cgroup/unified"
		case controllers == "":
			place = "/sys/fs/cgroup"
		default:
			continue
		}
		group := filepath.Join(place, path, name)
		suite.Must(t, os.Mkdir(group, 0o755))
		made = append(made, group)
	}
	return made
}

// removeGroup removes a control group after all its processes have ended.
func removeGroup(t *testing.T, group string) {
	t.Helper()
	var last error
	if !parts.Eventually(bound, func() bool {
		last = parts.RemoveCgroup(group)
		return last == nil
	}) {
		t.Errorf("a control group is left: %v", last)
	}
}

// found reports whether the first process of the container runs systemd.
func (m *machine) found() bool {
	children, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", m.nspawn.Pid(), m.nspawn.Pid()))
	if err != nil {
		return false
	}
	for _, child := range strings.Fields(string(children)) {
		name, _ := os.ReadFile("/proc/" + child + "/comm")
		if strings.TrimSpace(string(name)) == "systemd" {
			_, _ = fmt.Sscan(child, &m.init)
			return true
		}
	}
	return false
}

// attempt runs a command in the container.
func (m *machine) attempt(args ...string) (string, error) {
	if m.init == 0 {
		return "", fmt.Errorf("the container has not begun")
	}
	enter := []string{"nsenter", fmt.Sprintf("--target=%d", m.init), "--mount", "--uts", "--ipc", "--pid", "--root", "--wd"}
	return attempt(append(enter, args...)...)
}

// run is attempt where it must work.
func (m *machine) run(t *testing.T, args ...string) string {
	t.Helper()
	out, err := m.attempt(args...)
	if err != nil {
		t.Fatalf("in the container: %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return strings.TrimSpace(out)
}

// path returns the path of a container's file on the host.
func (m *machine) path(name string) string {
	return fmt.Sprintf("/proc/%d/root/%s", m.init, strings.TrimPrefix(name, "/"))
}

// property returns a property of a unit.
func (m *machine) property(t *testing.T, unit, name string) string {
	t.Helper()
	return m.run(t, "systemctl", "show", "--value", "--property="+name, unit)
}
