package e2e_test

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"vault-kube-kms.test/cluster"
	"vault-kube-kms.test/parts"
)

// drilled is the report of a drill.
type drilled struct {
	Verdict  string
	Snapshot struct {
		Size     int64
		SHA256   string
		Digest   string
		Revision int64
		Problem  string
	}
	Keeper struct{ Latest, MinDecryption int }
	Totals struct {
		Objects, Tested, Other, Clear, Unreadable, Opened, Seeds int
		SeedsUnwrapped                                           int `json:"seeds_unwrapped"`
	}
	Versions struct{ Needed, Missing []int }
	Groups   []struct {
		Resource, State             string
		Objects, Opened, Unreadable int
	}
	Failures []struct{ Object, Reason, Cause string }
	Result   string
}

// drill runs the command and returns its report.
func drill(t *testing.T, code int, snapshot string, args ...string) (report drilled) {
	t.Helper()
	all := append([]string{"drill", "--output=json", "--wait=1", "--snapshot=" + snapshot}, args...)
	ctl(t, code, all...).answer(t, &report)
	return report
}

// settingsFile returns flags of the provider as its configuration file has them.
func settingsFile(flags []string) string {
	var config strings.Builder
	for _, flag := range flags {
		name, value, _ := strings.Cut(strings.TrimPrefix(flag, "--"), "=")
		fmt.Fprintf(&config, "%s = %q\n", name, value)
	}
	return config.String()
}

// requireUnreadable requires that this number of objects fails, each for this reason, and that these versions are
// missing.
func (d drilled) requireUnreadable(t *testing.T, count int, reason string, missing ...int) {
	t.Helper()
	if d.Verdict != "unreadable" || d.Totals.Unreadable != count || len(d.Failures) != count {
		t.Errorf("%s: %d objects cannot be read, and not %d: %+v", d.Verdict, d.Totals.Unreadable, count, d.Failures)
	}
	for _, failure := range d.Failures {
		if failure.Reason != reason {
			t.Errorf("%s: %s and not %s: %s", failure.Object, failure.Reason, reason, failure.Cause)
		}
	}
	if len(d.Versions.Missing) != len(missing) || len(missing) > 0 && !slices.Equal(d.Versions.Missing, missing) {
		t.Errorf("the versions %v are missing, and not %v", d.Versions.Missing, missing)
	}
}

// scratch is a server to which a backup of a key is restored.
type scratch struct {
	*parts.OpenBao
	flags []string
}

// newScratch starts a server without a key.
func newScratch(t *testing.T, program string) *scratch {
	t.Helper()
	dir := shortDir(t)
	server, err := parts.StartOpenBao(parts.Way{Logs: dir}, needed(t, program), dir)
	must(t, err)
	t.Cleanup(server.Kill)
	tenant, err := server.NewTenant(cluster.Key, dir, 60, parts.UseOfKey...)
	must(t, err)
	return &scratch{server, append([]string{"--"}, tenant.Flags()...)}
}

func (s *scratch) restore(t *testing.T, backup any) {
	t.Helper()
	_, err := s.Ask("POST", "transit/restore/"+cluster.Key, map[string]any{"backup": backup, "force": true})
	must(t, err)
}

func (s *scratch) change(t *testing.T, path string, settings map[string]any) {
	t.Helper()
	_, err := s.Ask("POST", "transit/keys/"+cluster.Key+path, settings)
	must(t, err)
}

// TestADrill takes a snapshot of a cluster whose Secrets have two key versions. It expects that each keeper that has
// both versions reads it, and that each other one is told apart by its reason.
func TestADrill(t *testing.T) {
	t.Parallel()
	c := start(t, delayed(0))
	createMany(t, c.api, 0, 30)
	first := c.onlyKeyID(t)
	before := backedUp(t, c.Bao, "transit")
	must(t, c.Rotate())
	c.plugin.Stop()
	must(t, c.plugin.Restart())
	c.restartAPIServer(t)
	c.writesUnder(t, c.api, first)
	dir := shortDir(t)
	file := filepath.Join(dir, "snapshot.db")
	must(t, c.Etcd.Save(file))
	all := len(c.stored(t))
	live := append([]string{"--"}, c.Tenant.Flags()...)
	key := func() map[string]any {
		key, err := c.Bao.Ask("GET", "transit/keys/"+cluster.Key, nil)
		must(t, err)
		return key
	}
	key1 := key()

	requireGood := func(t *testing.T, report drilled, opened int) {
		t.Helper()
		totals := report.Totals
		if report.Verdict != "readable" || totals.Tested != all || totals.Unreadable != 0 || totals.Opened != opened ||
			totals.Seeds != c.seeds(t) || totals.SeedsUnwrapped != totals.Seeds || totals.Clear == 0 {
			t.Errorf("%d Secrets: %+v", all, report)
		}
	}

	t.Run("of the live keeper", func(t *testing.T) {
		page, paper := filepath.Join(dir, "report.html"), filepath.Join(dir, "report.json")
		report := drill(t, good, file, append([]string{"--all", "--report=" + page, "--report=" + paper}, live...)...)
		requireGood(t, report, all)
		if !slices.Equal(report.Versions.Needed, []int{1, 2}) || report.Snapshot.Digest != "fits" || report.Snapshot.Revision == 0 {
			t.Errorf("%+v", report)
		}
		if !reflect.DeepEqual(key(), key1) {
			t.Error("the drill changed the key")
		}
		html, err := os.ReadFile(page)
		must(t, err)
		for _, text := range []string{report.Snapshot.SHA256, "Everything is readable", first} {
			if !bytes.Contains(html, []byte(text)) {
				t.Errorf("%q is missing in the page", text)
			}
		}
		written, err := os.ReadFile(paper)
		must(t, err)
		if bytes.Contains(html, []byte("<script")) || bytes.Contains(append(html, written...), []byte("canary-of-")) {
			t.Error("the report has a script or a value")
		}
	})
	t.Run("of a sample, with a configuration file", func(t *testing.T) {
		settings := filepath.Join(dir, "vault-kube-kms.toml")
		must(t, os.WriteFile(settings, []byte(settingsFile(c.Tenant.Flags())), 0o600))
		report := drill(t, good, file, "--sample=1", "--resource=secrets", "--config="+settings)
		report.Totals.Clear++ // Secrets alone are never in clear here.
		requireGood(t, report, report.Totals.Seeds)
		if !strings.HasSuffix(report.Result, " Only objects of secrets were tested.") {
			t.Error(report.Result)
		}
	})
	t.Run("of a plugin", func(t *testing.T) {
		requireGood(t, drill(t, good, file, "--all", "--plugin="+c.plugin.Endpoint, "--provider="+cluster.Provider), all)
		if said := ctl(t, noAnswer, "drill", "--snapshot="+file, "--plugin="+c.plugin.Endpoint, "--provider=another"); !strings.Contains(said.stderr, "nothing-to-test") {
			t.Error(said.stderr)
		}
	})
	t.Run("of a restored backup", func(t *testing.T) {
		s := newScratch(t, "BAO")
		drill(t, bad, file, s.flags...).requireUnreadable(t, all, "key-missing")
		s.restore(t, before)
		old := drill(t, bad, file, s.flags...)
		ofSecond := all - 30
		old.requireUnreadable(t, ofSecond, "version-missing", 2)
		s.restore(t, backedUp(t, c.Bao, "transit"))
		requireGood(t, drill(t, good, file, append([]string{"--all"}, s.flags...)...), all)
		s.change(t, "/config", map[string]any{"min_decryption_version": 2})
		listed := filepath.Join(dir, "unreadable.txt")
		drill(t, bad, file, append([]string{"--list-unreadable=" + listed}, s.flags...)...).requireUnreadable(t, 30, "version-missing", 1)
		lines, err := os.ReadFile(listed)
		must(t, err)
		if strings.Count(string(lines), "version-missing\t/registry/secrets/default/") != 30 || strings.Count(string(lines), "\n") != 30 {
			t.Errorf("the list has\n%s", lines)
		}
		s.change(t, "/config", map[string]any{"deletion_allowed": true})
		_, err = s.Ask("DELETE", "transit/keys/"+cluster.Key, nil)
		must(t, err)
		s.change(t, "", map[string]any{"type": "aes256-gcm96"})
		s.change(t, "/rotate", nil)
		drill(t, bad, file, s.flags...).requireUnreadable(t, all, "other-key")
		s.Kill()
		if said := ctl(t, noAnswer, append([]string{"drill", "--wait=1", "--snapshot=" + file}, s.flags...)...); said.stdout != "" {
			t.Errorf("without a keeper it says %s", said.stdout)
		}
	})
	t.Run("of a restored backup at Vault", func(t *testing.T) {
		s := newScratch(t, "VAULT")
		s.restore(t, backedUp(t, c.Bao, "transit"))
		requireGood(t, drill(t, good, file, append([]string{"--all"}, s.flags...)...), all)
	})
	t.Run("of a restored Raft snapshot", func(t *testing.T) {
		snapshot, err := c.Bao.Snapshot()
		must(t, err)
		s := newScratch(t, "BAO")
		must(t, s.RestoreSnapshot(snapshot, c.Bao))
		there := *c.Tenant
		there.Bao = s.OpenBao
		requireGood(t, drill(t, good, file, append([]string{"--all", "--"}, there.Flags()...)...), all)
	})
	t.Run("of a damaged file", func(t *testing.T) {
		whole, err := os.ReadFile(file)
		must(t, err)
		flipped := slices.Clone(whole)
		flipped[len(flipped)/2] ^= 1
		for name, content := range map[string][]byte{"flipped": flipped, "cut": whole[:len(whole)/2], "part": whole[:len(whole)-32-4096]} {
			broken := filepath.Join(dir, name)
			must(t, os.WriteFile(broken, content, 0o600))
			report := drill(t, bad, broken, live...)
			if report.Verdict != "damaged" || report.Snapshot.Problem == "" {
				t.Errorf("%s: %+v", name, report)
			}
		}
		copied := filepath.Join(dir, "copy")
		must(t, os.WriteFile(copied, whole[:len(whole)-32], 0o600))
		if report := drill(t, good, copied, live...); report.Snapshot.Digest != "absent" {
			t.Errorf("%+v", report)
		}
	})
	t.Run("of a moved object", func(t *testing.T) {
		stored := c.stored(t)[0]
		_, err := c.Etcd.Put("/registry/secrets/default/moved", stored.raw)
		must(t, err)
		changed := slices.Clone(stored.raw)
		changed[bytes.IndexByte(changed, 0xa)+40] ^= 1
		_, err = c.Etcd.Put("/registry/secrets/default/"+stored.name, changed)
		must(t, err)
		after := filepath.Join(dir, "moved.db")
		must(t, c.Etcd.Save(after))
		report := drill(t, bad, after, append([]string{"--all"}, live...)...)
		report.requireUnreadable(t, 2, "binding")
		if report.Failures[1].Object != "/registry/secrets/default/moved" {
			t.Errorf("%+v", report.Failures)
		}
	})
}

// TestADrillReadsWhatEtcdHas expects that a snapshot shows the newest value of each key, also after a compaction.
func TestADrillReadsWhatEtcdHas(t *testing.T) {
	t.Parallel()
	dir := shortDir(t)
	etcd, err := parts.StartEtcd(parts.Way{Logs: dir}, needed(t, "ETCD"), dir)
	must(t, err)
	t.Cleanup(etcd.Kill)
	put := func(name, value string) (revision int64) {
		revision, err := etcd.Put("/registry/secrets/default/"+name, []byte(value))
		must(t, err)
		return revision
	}
	const garbage, clear = "garbage", "k8s\x00an object"
	for number := range 150 {
		put(fmt.Sprintf("clear-%d", number), garbage)
	}
	for number := range 150 {
		put(fmt.Sprintf("clear-%d", number), clear)
		put(fmt.Sprintf("deleted-%d", number), garbage)
	}
	for number := range 150 {
		_, err := etcd.Delete(fmt.Sprintf("/registry/secrets/default/deleted-%d", number))
		must(t, err)
	}
	put("large", clear+strings.Repeat("x", 1_000_000))
	put("deleted-7", garbage)
	revision := put("clear-9", garbage)
	require := func(name string) {
		t.Helper()
		file := filepath.Join(dir, name)
		must(t, etcd.Save(file))
		report := drill(t, bad, file, "--", "--keeper=local", "--local-key-file="+keyFile(t))
		if report.Totals.Clear != 150 || report.Snapshot.Revision != revision || report.Snapshot.Digest != "fits" {
			t.Errorf("%s: %+v", name, report)
		}
		report.requireUnreadable(t, 2, "damaged")
		if report.Failures[0].Object != "/registry/secrets/default/clear-9" || report.Failures[1].Object != "/registry/secrets/default/deleted-7" {
			t.Errorf("%+v", report.Failures)
		}
	}
	require("before.db")
	must(t, etcd.Compact(revision))
	require("after.db")
}

// keyFile makes the key file of a local keeper.
func keyFile(t *testing.T) string {
	t.Helper()
	file := filepath.Join(shortDir(t), "key.json")
	must(t, parts.Command(needed(t, "PROVIDER"), "local", "init", "--local-key-file="+file).Run())
	return file
}
