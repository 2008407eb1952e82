package packages_test

import (
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"vault-kube-kms.test/suite"
)

// TestTheLintersReportNothingNew expects that the linters report only the tags that deploy/package explains.
func TestTheLintersReportNothingNew(t *testing.T) {
	t.Parallel()
	// A part of the machine code looks like a word in some builds.
	say := run(t, "lintian", "--suppress-tags=spelling-error-in-binary", "--no-user-dirs", "--allow-root", "--display-info", "--pedantic", "--tag-display-limit=0",
		"--fail-on=error,warning,info,pedantic", file(t, first, "*.deb"), fileOf(t, kmsctl, first, "*.deb"))
	if say != "" {
		t.Errorf("lintian: %s", say)
	}
	say = run(t, "rpmlint", "--config", shipped(t, "package/rpmlint.toml"), file(t, first, "*.rpm"), fileOf(t, kmsctl, first, "*.rpm"))
	if !strings.Contains(say, "2 packages and 0 specfiles checked; 0 errors, 0 warnings") {
		t.Errorf("rpmlint: %s", say)
	}
	pages, err := filepath.Glob(shipped(t, "package/kmsctl/*.8"))
	if err != nil || len(pages) == 0 {
		t.Errorf("the manual pages of vault-kube-kmsctl: %v, %v", pages, err)
	}
	for _, page := range append(pages, shipped(t, "package/vault-kube-kms.8")) {
		// The style of clap's pages, such as long lines, is not ours.
		level := "-Wall"
		if strings.Contains(page, kmsctl) {
			level = "-Wwarning"
		}
		// mandoc prints errors about other manual pages, which this machine lacks, to standard error.
		say, err := exec.Command("mandoc", "-Tlint", level, page).Output()
		if err != nil || len(say) > 0 {
			t.Errorf("mandoc %s: %v: %s", page, err, say)
		}
	}
	for _, script := range []string{"postinstall.sh", "preremove.sh", "postremove.sh", "completion.bash"} {
		run(t, "shellcheck", shipped(t, "package/"+script))
	}
}

func TestTwoBuildsOfThePackagesAreAlike(t *testing.T) {
	t.Parallel()
	for _, program := range []string{provider, kmsctl} {
		for _, pattern := range []string{"*.deb", "*.rpm", "*.tar.gz"} {
			if read(t, fileOf(t, program, first, pattern)) != read(t, fileOf(t, program, "again", pattern)) {
				t.Errorf("two builds of %s of %s differ", pattern, program)
			}
		}
	}
}

// entry is a line of a list of files: mode, owner, size and path.
var entry = regexp.MustCompile(`(?m)^(\S+)\s+(?:\d+\s+)?(\w+)[/\s]+(\w+)\s+(\d+)\s.*?\.?(/\S+)$`)

func listed(list string) map[string]string {
	files := map[string]string{}
	for _, found := range entry.FindAllStringSubmatch(list, -1) {
		if !strings.HasPrefix(found[1], "d") {
			files[found[5]] = strings.Join(found[1:5], " ")
		}
	}
	return files
}

// TestTheDebAndTheRpmHoldTheSameFiles expects the same files in both, except for paths that differ between the
// distributions.
func TestTheDebAndTheRpmHoldTheSameFiles(t *testing.T) {
	t.Parallel()
	deb := listed(run(t, "dpkg-deb", "--contents", file(t, first, "*.deb")))
	rpm := listed(run(t, "rpm", "--query", "--list", "--verbose", "--package", file(t, first, "*.rpm")))
	alone := func(one, other map[string]string) (paths []string) {
		for path := range one {
			if _, both := other[path]; !both {
				paths = append(paths, path)
			}
		}
		slices.Sort(paths)
		return paths
	}
	require := func(what string, found, want []string) {
		if !slices.Equal(found, want) {
			t.Errorf("%s: %q, and not %q", what, found, want)
		}
	}
	require("only in the deb", alone(deb, rpm), []string{
		"/usr/share/doc/vault-kube-kms/changelog.Debian.gz",
		"/usr/share/doc/vault-kube-kms/copyright",
		"/usr/share/lintian/overrides/vault-kube-kms",
		"/usr/share/zsh/vendor-completions/_vault-kube-kms",
	})
	require("only in the rpm", alone(rpm, deb), []string{
		"/usr/share/licenses/vault-kube-kms/LICENSE",
		"/usr/share/zsh/site-functions/_vault-kube-kms",
	})
	for path, about := range deb {
		if other, both := rpm[path]; both && other != about {
			t.Errorf("%s: %s in the deb, %s in the rpm", path, about, other)
		}
		if mode, _, _ := strings.Cut(about, " "); mode != "-rw-r--r--" && path != "/usr/bin/vault-kube-kms" {
			t.Errorf("%s has the mode %s", path, mode)
		}
	}
	if len(deb) < 12 {
		t.Errorf("only %v", slices.Collect(maps.Keys(deb)))
	}
	settings := "/etc/vault-kube-kms/vault-kube-kms.env"
	if say := run(t, "dpkg-deb", "--info", file(t, first, "*.deb"), "conffiles"); strings.TrimSpace(say) != settings {
		t.Errorf("conffiles of the deb: %s", say)
	}
	say := run(t, "rpm", "--query", "--queryformat", "[%{FILENAMES} %{FILEFLAGS:fflags}\n]", "--package", file(t, first, "*.rpm"))
	if !strings.Contains(say, settings+" cn\n") {
		t.Errorf("flags of the rpm: %s", say)
	}
}

// TestTheArchiveHoldsTheProgramAndItsUnits expects the same program in the archive, and in config/systemd the
// units with the original's path.
func TestTheArchiveHoldsTheProgramAndItsUnits(t *testing.T) {
	t.Parallel()
	dir := suite.ShortDir(t)
	run(t, "tar", "--extract", "--gzip", "--file", file(t, first, "*.tar.gz"), "--directory", dir)
	if read(t, dir, "vault-kube-kms") != read(t, suite.Needed(t, "PROVIDER")) {
		t.Error("the program differs")
	}
	units, err := os.ReadDir(shipped(t, "systemd"))
	suite.Must(t, err)
	for _, unit := range units {
		if read(t, dir, "config/systemd", unit.Name()) != read(t, shipped(t, "systemd"), unit.Name()) {
			t.Errorf("%s is another one", unit.Name())
		}
	}
	if unit := read(t, dir, "config/systemd/vault-kube-kms.service"); !strings.Contains(unit, "ExecStart=/usr/local/bin/vault-kube-kms\n") {
		t.Errorf("the unit starts another program: %s", unit)
	}
	if out, err := attempt(filepath.Join(dir, "vault-kube-kms"), "--version"); err != nil {
		t.Errorf("%v: %s", err, out)
	}
}

// TestTheUnitsOfThePackagesDifferInOnePath expects that units of packages and of the archive differ only in the
// path of the program.
func TestTheUnitsOfThePackagesDifferInOnePath(t *testing.T) {
	t.Parallel()
	dir := suite.ShortDir(t)
	run(t, "dpkg-deb", "--extract", file(t, first, "*.deb"), dir)
	for _, unit := range []string{"vault-kube-kms.service", "vault-kube-kms@.service"} {
		packaged := read(t, dir, "usr/lib/systemd/system", unit)
		want := strings.Replace(read(t, shipped(t, "systemd"), unit), "/usr/local/bin/", "/usr/bin/", 1)
		if packaged != want || !strings.Contains(packaged, "ExecStart=/usr/bin/vault-kube-kms\n") {
			t.Errorf("%s: %s", unit, fmt.Sprint(packaged))
		}
	}
}

// TestFishAndZshComplete expects that each shell completes a value of a flag. tests/deploy.rs tests bash.
func TestFishAndZshComplete(t *testing.T) {
	t.Parallel()
	offered := func(line string) string {
		return run(t, "fish", "--no-config", "--command",
			fmt.Sprintf("source %q; complete --do-complete %q", shipped(t, "package/completion.fish"), line))
	}
	for line, want := range map[string]string{
		"vault-kube-kms che":         "check\t",
		"vault-kube-kms local ":      "rotate\t",
		"vault-kube-kms --keeper lo": "local\t",
		"vault-kube-kms --tls-sn":    "--tls-sni\t",
	} {
		if said := offered(line); !strings.Contains(said, want) {
			t.Errorf("fish offers %q after %q", said, line)
		}
	}
	dir := suite.ShortDir(t)
	write(t, read(t, shipped(t, "package/completion.zsh")), 0o644, dir, "_vault-kube-kms")
	// zsh runs in its own terminal, which gets the keys. Each read waits for its pattern.
	const typed = `zmodload zsh/zpty
zpty shell zsh -f -i
zpty -w shell "PS1=; fpath=($1 \$fpath); autoload -Uz compinit; compinit -u -D; print ready\$((1 + 1))"
zpty -r shell seen '*ready2*'
zpty -w -n shell $'vault-kube-kms --keeper=lo\t'
zpty -r shell seen '*--keeper=local*'
zpty -w -n shell $'\x15vault-kube-kms loc\t'
zpty -r shell seen '*vault-kube-kms local*'
zpty -w -n shell $'rot\t'
zpty -r shell seen '*rotate*'
zpty -d shell
print completed`
	if said := run(t, "timeout", "60", "zsh", "-f", "-c", typed, "-", dir); said != "completed\n" {
		t.Errorf("zsh: %s", said)
	}
}
