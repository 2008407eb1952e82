package packages_test

import (
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"vault-kube-kms.test/suite"
)

// TestThePackagesOfTheSecondProgram expects that each package of vault-kube-kmsctl installs without the provider,
// has no unit, no user and no script, is upgraded, and leaves nothing when it is removed.
func TestThePackagesOfTheSecondProgram(t *testing.T) {
	t.Parallel()
	erase := map[string]string{"deb": "--purge", "rpm": "--erase"}
	for name, how := range packagers {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			root := unpacked(t)
			how.install(t, root, fileOf(t, kmsctl, first, how.pattern))
			if say := run(t, "chroot", root, kmsctl, "--version"); !strings.HasPrefix(say, kmsctl+" ") {
				t.Errorf("the version: %s", say)
			}
			program := "usr/bin/" + kmsctl
			before := inode(t, root, program)
			how.upgrade(t, root, fileOf(t, kmsctl, next, how.pattern))
			if inode(t, root, program) == before {
				t.Error("the upgrade left the program")
			}
			remove := map[string]func(t *testing.T, root, file string) string{"deb": dpkg(erase[name]), "rpm": rpm(erase[name])}
			remove[name](t, root, kmsctl)
			if left := run(t, "find", root, "-xdev", "-path", root+"/proc", "-prune", "-o", "-name", "*vault-kube-kms*", "-print"); left != "" {
				t.Errorf("the removal left %s", left)
			}
		})
	}
}

// TestTheFilesOfTheSecondProgram expects only documents, completions and the program in its packages and in its
// archive, no script, and dependencies on the C library alone.
func TestTheFilesOfTheSecondProgram(t *testing.T) {
	t.Parallel()
	deb, rpm := fileOf(t, kmsctl, first, "*.deb"), fileOf(t, kmsctl, first, "*.rpm")
	for file, list := range map[string]string{
		deb: run(t, "dpkg-deb", "--contents", deb),
		rpm: run(t, "rpm", "--query", "--list", "--verbose", "--package", rpm),
	} {
		files := listed(list)
		for path, about := range files {
			mode, _, _ := strings.Cut(about, " ")
			if !strings.HasPrefix(path, "/usr/share/") && path != "/usr/bin/"+kmsctl || strings.Contains(path, "systemd") {
				t.Errorf("%s has %s", file, path)
			}
			if mode != "-rw-r--r--" && path != "/usr/bin/"+kmsctl {
				t.Errorf("%s has the mode %s", path, mode)
			}
		}
		if _, found := files["/usr/share/man/man8/"+kmsctl+".8.gz"]; !found || len(files) < 7 {
			t.Errorf("%s has only %v", file, files)
		}
	}
	if depends := run(t, "dpkg-deb", "--field", deb, "Depends"); depends != "libc6 (>= 2.34), libgcc-s1\n" {
		t.Errorf("the deb depends on %s", depends)
	}
	dir := suite.ShortDir(t)
	run(t, "dpkg-deb", "--control", deb, filepath.Join(dir, "control"))
	control, err := filepath.Glob(filepath.Join(dir, "control/*"))
	suite.Must(t, err)
	if want := []string{filepath.Join(dir, "control/control"), filepath.Join(dir, "control/md5sums")}; !slices.Equal(control, want) {
		t.Errorf("the deb has %v", control)
	}
	if scripts := run(t, "rpm", "--query", "--scripts", "--package", rpm); scripts != "" {
		t.Errorf("the rpm runs scripts: %s", scripts)
	}
	run(t, "tar", "--extract", "--gzip", "--file", fileOf(t, kmsctl, first, "*.tar.gz"), "--directory", dir)
	if read(t, dir, kmsctl) != read(t, suite.Needed(t, "KMSCTL")) {
		t.Error("the program in the archive differs")
	}
	for _, name := range []string{kmsctl + ".8", kmsctl + ".cdx.json", "LICENSE", "CHANGELOG.md", "completion/completion.bash"} {
		if !exists(filepath.Join(dir, name)) {
			t.Errorf("the archive lacks %s", name)
		}
	}
}
