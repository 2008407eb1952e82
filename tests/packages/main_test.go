// Package packages_test checks the shipped packages with linters, and installs them in separate roots and in a
// booted container.
package packages_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"vault-kube-kms.test/suite"
)

func TestMain(m *testing.M) { suite.Main(m, 4) }

// These are folders of packages: of the present version, and of a next version whose environment file has one
// more line.
const (
	first = "first"
	next  = "next"
)

// These are the names of the programs and of their packages.
const (
	provider = "vault-kube-kms"
	kmsctl   = "vault-kube-kmsctl"
)

// file returns the path of a file of the provider, such as "*.deb" of first.
func file(t *testing.T, folder, pattern string) string {
	t.Helper()
	return fileOf(t, provider, folder, pattern)
}

// fileOf returns the path of a file of a program. The name is followed by the version.
func fileOf(t *testing.T, program, folder, pattern string) string {
	t.Helper()
	pattern = program + `[_\-]` + pattern
	found, err := filepath.Glob(filepath.Join(suite.Needed(t, "PACKAGES"), folder, pattern))
	if err != nil || len(found) != 1 {
		t.Fatalf("%s in %s: %v, %v", pattern, folder, found, err)
	}
	return found[0]
}

// shipped returns the path of a file of the repository's deploy folder.
func shipped(t *testing.T, name string) string {
	t.Helper()
	return filepath.Join(suite.Needed(t, "DEPLOY"), name)
}

// attempt runs a command and returns its output.
func attempt(args ...string) (string, error) {
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Env = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "DEBIAN_FRONTEND=noninteractive", "LC_ALL=C.UTF-8"}
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// run is attempt for a command that must succeed.
func run(t *testing.T, args ...string) string {
	t.Helper()
	out, err := attempt(args...)
	if err != nil {
		t.Fatalf("%s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return out
}

// needRoot skips a test that needs root. On CI the test fails instead.
func needRoot(t *testing.T) {
	t.Helper()
	if os.Getuid() != 0 {
		suite.Skip(t, "ONLY ROOT CAN INSTALL PACKAGES AND BOOT A CONTAINER; run cargo xtask package as root")
	}
}

// unpacked returns the folder of a Debian with systemd, unpacked for this test.
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
