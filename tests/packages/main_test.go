// Package packages_test installs what is shipped: linters, roots of their own, a booted container.
package packages_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"vault-kube-kms.test/suite"
)

func TestMain(m *testing.M) { suite.Main(m, 4) }

// One of the folders of packages: of the version as it is, and of the next one, whose environment file has
// another line.
const (
	first = "first"
	next  = "next"
)

// file is a file of the packages, such as "*.deb" of first.
func file(t *testing.T, folder, pattern string) string {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(suite.Needed(t, "PACKAGES"), folder, pattern))
	if err != nil || len(found) != 1 {
		t.Fatalf("%s in %s: %v, %v", pattern, folder, found, err)
	}
	return found[0]
}

// shipped is a file of the repository's deploy folder.
func shipped(t *testing.T, name string) string {
	t.Helper()
	return filepath.Join(suite.Needed(t, "DEPLOY"), name)
}

// attempt runs a command, and returns what it prints.
func attempt(args ...string) (string, error) {
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Env = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "DEBIAN_FRONTEND=noninteractive", "LC_ALL=C.UTF-8"}
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// run is attempt where it must work.
func run(t *testing.T, args ...string) string {
	t.Helper()
	out, err := attempt(args...)
	if err != nil {
		t.Fatalf("%s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return out
}

// needRoot ends a test that cannot run as another user. On CI that is a failure.
func needRoot(t *testing.T) {
	t.Helper()
	if os.Getuid() == 0 {
		return
	}
	const text = "SKIPPED: ONLY ROOT CAN INSTALL PACKAGES AND BOOT A CONTAINER; run cargo xtask package as root"
	if os.Getenv("CI") == "true" {
		t.Fatal(text)
	}
	fmt.Fprintln(os.Stderr, text)
	t.Skip(text)
}

// unpacked is a Debian with systemd, in a folder of its own.
func unpacked(t *testing.T) string {
	t.Helper()
	needRoot(t)
	dir := suite.ShortDir(t)
	run(t, "tar", "--extract", "--numeric-owner", "--file", suite.Needed(t, "ROOTFS"), "--directory", dir)
	return dir
}

func read(t *testing.T, path ...string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(path...))
	suite.Must(t, err)
	return string(text)
}

func write(t *testing.T, text string, mode os.FileMode, path ...string) {
	t.Helper()
	name := filepath.Join(path...)
	suite.Must(t, os.MkdirAll(filepath.Dir(name), 0o755))
	suite.Must(t, os.WriteFile(name, []byte(text), mode))
}

func exists(path ...string) bool {
	_, err := os.Lstat(filepath.Join(path...))
	return err == nil
}
