package packages_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"vault-kube-kms.test/suite"
)

const (
	settings = "etc/vault-kube-kms/vault-kube-kms.env"
	secretID = "etc/vault-kube-kms/approle-secret-id"
	program  = "usr/bin/vault-kube-kms"
	edited   = "VAULT_KUBE_KMS_VAULT_ADDRESS=\"https://vault:8200\"\n"
)

// packager has the commands by which a distribution installs and removes packages.
type packager struct {
	install, upgrade, remove func(t *testing.T, root, file string) string
	pattern                  string
	// beside is the path of the new settings when the installed ones were edited.
	beside string
}

var packagers = map[string]packager{
	"deb": {
		install: dpkg("--install"), upgrade: dpkg("--force-confdef", "--force-confold", "--install"),
		remove:  func(t *testing.T, root, _ string) string { return dpkg("--remove")(t, root, "vault-kube-kms") },
		pattern: "*.deb", beside: settings + ".dpkg-dist",
	},
	"rpm": {
		install: rpm("--install"), upgrade: rpm("--upgrade"),
		remove:  func(t *testing.T, root, _ string) string { return rpm("--erase")(t, root, "vault-kube-kms") },
		pattern: "*.rpm", beside: settings + ".rpmnew",
	},
}

func dpkg(args ...string) func(t *testing.T, root, file string) string {
	return func(t *testing.T, root, file string) string {
		t.Helper()
		return run(t, append(append([]string{"dpkg", "--root=" + root}, args...), file)...)
	}
}

// The root is a Debian, whose packages this rpm does not know.
func rpm(args ...string) func(t *testing.T, root, file string) string {
	return func(t *testing.T, root, file string) string {
		t.Helper()
		return run(t, append(append([]string{"rpm", "--root=" + root, "--nodeps"}, args...), file)...)
	}
}

// TestEachPackageInARootOfItsOwn expects that each package makes the user and the folder, does not enable or
// start the service, keeps edited settings in an upgrade, and keeps credentials when it is removed.
func TestEachPackageInARootOfItsOwn(t *testing.T) {
	t.Parallel()
	for name, how := range packagers {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			root := unpacked(t)
			how.install(t, root, file(t, first, how.pattern))
			say := run(t, "chroot", root, "vault-kube-kms", "--version")
			if !strings.HasPrefix(say, "vault-kube-kms ") {
				t.Errorf("the version: %s", say)
			}
			requireFolder(t, root)
			enabled, err := filepath.Glob(filepath.Join(root, "etc/systemd/system/*.wants/vault-kube-kms*"))
			if suite.Must(t, err); len(enabled) > 0 {
				t.Errorf("the installation enabled %v", enabled)
			}
			write(t, edited, 0o644, root, settings)
			write(t, "a secret", 0o640, root, secretID)
			before := inode(t, root, program)
			how.upgrade(t, root, file(t, next, how.pattern))
			if inode(t, root, program) == before {
				t.Error("the upgrade left the program")
			}
			if text := read(t, root, settings); text != edited {
				t.Errorf("the upgrade changed the settings: %s", text)
			}
			if text := read(t, root, how.beside); !strings.HasSuffix(text, "# Of the next version.\n") {
				t.Errorf("the new settings are not beside the edited ones: %s", text)
			}
			requireFolder(t, root)
			run(t, "systemctl", "--root="+root, "enable", "vault-kube-kms.service", "vault-kube-kms.socket")
			how.remove(t, root, "")
			left, err := filepath.Glob(filepath.Join(root, "etc/systemd/system/*.wants/vault-kube-kms*"))
			if suite.Must(t, err); len(left) > 0 || exists(root, program) {
				t.Errorf("the removal left %v and the program: %v", left, exists(root, program))
			}
			if name == "deb" {
				if read(t, root, settings) != edited {
					t.Error("the removal, which is no purge, took the settings")
				}
				say := dpkg("--purge")(t, root, "vault-kube-kms")
				if !strings.Contains(say, "/etc/vault-kube-kms holds files that are not of the package") {
					t.Errorf("the purge does not say what stays: %s", say)
				}
				requirePurged(t, root)
			}
			if read(t, root, secretID) != "a secret" {
				t.Error("a credential was removed")
			}
			suite.Must(t, os.Remove(filepath.Join(root, secretID)))
			if name == "deb" {
				how.install(t, root, file(t, first, how.pattern))
				dpkg("--purge")(t, root, "vault-kube-kms")
				if exists(root, "etc/vault-kube-kms") {
					t.Error("the purge left an empty folder")
				}
			}
		})
	}
}

func requirePurged(t *testing.T, root string) {
	t.Helper()
	say := run(t, "find", root, "-xdev", "-path", root+"/proc", "-prune", "-o", "-name", "*vault-kube-kms*", "-print")
	// The folder holds a credential. dpkg keeps its own lists of an incomplete package.
	if want := filepath.Join(root, "etc/vault-kube-kms") + "\n"; say != want {
		t.Errorf("the purge left %s", say)
	}
}

// requireFolder requires that only the service's user may enter the folder of settings.
func requireFolder(t *testing.T, root string) {
	t.Helper()
	found := run(t, "chroot", root, "stat", "--format=%a %U %G", "/etc/vault-kube-kms")
	if strings.TrimSpace(found) != "750 root vault-kube-kms" {
		t.Errorf("the folder of settings: %s", found)
	}
}

func inode(t *testing.T, path ...string) string {
	t.Helper()
	info, err := os.Stat(filepath.Join(path...))
	suite.Must(t, err)
	return fmt.Sprint(info.Sys().(*syscall.Stat_t).Ino, info.ModTime())
}
