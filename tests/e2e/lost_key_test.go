package e2e_test

import (
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"vault-kube-kms.test/cluster"
	"vault-kube-kms.test/parts"
	"vault-kube-kms.test/suite"
)

const (
	lostKey = "lost-key.md"
	ready   = "/readyz"
	// unsafeDeletion lets an API server delete objects that it cannot read.
	unsafeDeletion = "--feature-gates=AllowUnsafeMalformedObjectDeletion=true"
)

// loss is a control plane with Secrets under versions 1 and 2 of the key. No key can read those under version 1.
// Its API server was not restarted since.
type loss struct {
	*controlPlane
	dir, backup string
	old, recent []string
}

// loseVersionOne starts a control plane, and trims version 1 of its key after a backup of the key.
func loseVersionOne(t *testing.T) *loss {
	t.Helper()
	l := &loss{
		controlPlane: start(t, delayed(0)), dir: shortDir(t),
		old: []string{"old-1", "old-2", "old-3"}, recent: []string{"recent-1", "recent-2"},
	}
	l.api.mustCreate(t, l.old...)
	first := l.onlyKeyID(t)
	must(t, l.Rotate())
	// At their start the plugin reads the key, and the API server asks for the key id.
	l.plugin.Stop()
	must(t, l.plugin.Restart())
	l.restartAPIServer(t)
	l.api.mustCreate(t, l.recent...)
	if l.keyIDs(t)[first] != len(l.old) || len(l.keyIDs(t)) != 2 {
		t.Fatalf("Secrets are stored under %v", l.keyIDs(t))
	}
	l.api.requireList(t, 5)
	l.backup = filepath.Join(l.dir, "kubernetes.backup")
	must(t, os.WriteFile(l.backup, []byte(backedUp(t, l.Bao, "transit").(string)), 0o600))
	l.configureKey(t, "config", map[string]any{"min_decryption_version": 2, "min_encryption_version": 2})
	return l
}

func (l *loss) configureKey(t *testing.T, path string, settings map[string]any) {
	t.Helper()
	_, err := l.Bao.Ask("POST", "transit/keys/"+cluster.Key+"/"+path, settings)
	must(t, err)
}

func (l *loss) trim(t *testing.T) {
	t.Helper()
	l.configureKey(t, "trim", map[string]any{"min_available_version": 2})
}

// restartsUnready replaces the API server by one without memory, with these further flags. It requires that the API
// server answers, and that it is not ready because it cannot list the Secrets.
func (l *loss) restartsUnready(t *testing.T, flags ...string) {
	t.Helper()
	l.startsWithoutMemory(t, flags...)
	var text string
	unready := func() bool {
		_, text = l.api.answers(ready + "?verbose")
		return strings.Contains(text, "[-]informer-sync failed") && strings.Contains(text, "[+]kms-providers ok")
	}
	if !parts.EventuallyEvery(250*time.Millisecond, time.Minute, unready) {
		t.Fatalf("the API server is ready, or its provider is not: %s", text)
	}
}

// startsWithoutMemory replaces the API server by one without memory, with these further flags.
func (l *loss) startsWithoutMemory(t *testing.T, flags ...string) {
	t.Helper()
	l.api.Kill()
	if len(flags) > 0 {
		node := l.Nodes[0]
		dir := shortDir(t)
		server, err := parts.NewAPIServer(parts.Way{Logs: dir}, "kube-apiserver",
			filepath.Join(l.Programs.Kubernetes, "kube-apiserver"), dir, l.Etcd, node.Encryption, flags...)
		must(t, err)
		node.APIServer, l.api = server, api{server}
	}
	must(t, l.api.Launch())
	must(t, l.api.UntilOK(serves))
}

// types types the only block of the document that has a command with this text.
func (l *loss) types(t *testing.T, containing string) {
	t.Helper()
	must(t, l.WriteEnvironment())
	config := filepath.Join(l.dir, "config.toml")
	must(t, os.WriteFile(config, []byte(settingsFile(l.Tenant.Flags())), 0o600))
	scratch := "127.0.0.1:12379"
	here := strings.NewReplacer(
		"localhost:9090", l.plugin.MetricsAddress(), "/dev/shm/", l.dir+"/", "/etc/vault-kube-kms/config.toml", config,
		"/keys/kubernetes", "/keys/"+cluster.Key, "/restore/kubernetes", "/restore/"+cluster.Key,
		scratch, parts.FreeAddress(), "127.0.0.1:12380", parts.FreeAddress(),
	)
	prelude := "set -e; . " + cluster.EnvironmentFile(l.Dir) + "; cd " + l.dir + "; export HOME=" + l.dir +
		" PATH=" + filepath.Dir(needed(t, "KMSCTL")) + ":$PATH" +
		"; trap 'if [ -f scratch.pid ]; then kill \"$(cat scratch.pid)\"; fi 2>/dev/null' EXIT\n"
	blocks := slices.DeleteFunc(suite.Consoles(t, lostKey), func(block []suite.Typed) bool {
		return !slices.ContainsFunc(block, func(step suite.Typed) bool { return strings.Contains(step.Command, containing) })
	})
	if len(blocks) != 1 {
		t.Fatalf("%d blocks of %s have %q", len(blocks), lostKey, containing)
	}
	suite.Type(t, lostKey, blocks[0], prelude, here)
	if t.Failed() {
		t.FailNow()
	}
}

// requireFile requires the lines of a file that a command of the document wrote: one for each of these Secrets, with
// a prefix.
func (l *loss) requireFile(t *testing.T, name, prefix string, names []string) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(l.dir, name))
	must(t, err)
	var expected []string
	for _, secret := range names {
		expected = append(expected, prefix+secrets+"/"+secret)
	}
	if lines := strings.Fields(strings.ReplaceAll(string(text), prefix, "")); len(lines) != len(names) ||
		strings.TrimSpace(string(text)) != strings.Join(expected, "\n") {
		t.Fatalf("%s has\n%s", name, text)
	}
}

// adds appends a text to a file that a command of the document wrote.
func (l *loss) adds(t *testing.T, name, text string) {
	t.Helper()
	path := filepath.Join(l.dir, name)
	before, err := os.ReadFile(path)
	must(t, err)
	must(t, os.WriteFile(path, append(before, text...), 0o600))
}

// requireStored requires that etcd has exactly these Secrets.
func (l *loss) requireStored(t *testing.T, names ...string) {
	t.Helper()
	var have []string
	for _, s := range l.stored(t) {
		have = append(have, s.name)
	}
	if !slices.Equal(have, names) {
		t.Fatalf("etcd has %v and not %v", have, names)
	}
}

// requireRefused requires that a read fails with these texts. While an API server cannot list a resource, it answers
// a list with 500, or with 429 and in some releases without a reason.
func (l *loss) requireRefused(t *testing.T, path string, expected ...string) {
	t.Helper()
	var code int
	var text string
	if !parts.EventuallyEvery(250*time.Millisecond, 30*time.Second, func() bool {
		code, text = l.api.answers(path)
		return (code == http.StatusInternalServerError || code == http.StatusTooManyRequests) &&
			!slices.ContainsFunc(expected, func(part string) bool { return !strings.Contains(text, part) })
	}) {
		t.Errorf("%s: %d %s", path, code, text)
	}
}

// requireUnsafeDeletion skips the test for a release of Kubernetes that does not have the unsafe deletion.
func (l *loss) requireUnsafeDeletion(t *testing.T) {
	t.Helper()
	if minor := l.api.minor(t); minor < 32 {
		t.Skipf("Kubernetes 1.%d has no unsafe deletion", minor)
	}
}

// TestTheLostObjectsAreDeletedAndTheRestStays types the commands of docs/lost-key.md for a version that was trimmed:
// list, save, delete by the unsafe deletion, check. It expects that the texts of the document are seen, that exactly
// the lost Secrets are deleted, and that API servers become ready again. Then the key is found, and the ciphertexts
// are put back.
func TestTheLostObjectsAreDeletedAndTheRestStays(t *testing.T) {
	t.Parallel()
	l := loseVersionOne(t)
	l.requireUnsafeDeletion(t)
	l.trim(t)
	l.restartsUnready(t, unsafeDeletion)
	l.requireRefused(t, secrets+"/old-1", "corrupt object, Code: 7, Key: /secrets/default/old-1")
	l.requireRefused(t, secrets, "failed to read one or more secrets from the storage")
	if code, text, err := l.api.Ask("DELETE", secrets+"/old-1", nil); err != nil || code != http.StatusInternalServerError ||
		!strings.Contains(string(text), "version-retired: ") {
		t.Errorf("the normal deletion: %v: %d %s", err, code, text)
	}
	if !l.plugin.Healthy() {
		t.Error("the provider is not healthy")
	}
	l.api.requireReads(t, l.recent...)
	l.api.mustCreate(t, "written-meanwhile")

	l.requireForbidden(t, "get,delete")

	l.types(t, "> lost.txt")
	l.requireFile(t, "lost.txt", "", l.old)

	// A name that somebody added by mistake is readable, and stays.
	l.adds(t, "lost.txt", secrets+"/recent-1\n")
	l.types(t, "unsafe.json")
	printed, err := os.ReadFile(filepath.Join(l.dir, "deleted.txt"))
	must(t, err)
	if !strings.HasSuffix(string(printed), "KEPT "+secrets+"/recent-1\n") || strings.Count(string(printed), "deleted ") != len(l.old) {
		t.Fatalf("the deletion printed\n%s", printed)
	}
	rest := append(slices.Clone(l.recent), "written-meanwhile")
	l.requireStored(t, rest...)
	l.types(t, "--no-headers")
	l.restartAPIServer(t)
	l.api.requireList(t, len(rest))

	_, err = l.Bao.Ask("POST", "transit/restore/"+cluster.Key, map[string]any{"backup": l.readBackup(t), "force": true})
	must(t, err)
	l.api.mustCreate(t, "old-2")
	made := l.keyIDOf(t, "old-2")
	l.types(t, "scratch.pid")
	l.restartAPIServer(t)
	l.api.requireList(t, len(rest)+len(l.old))
	if l.keyIDOf(t, "old-2") != made {
		t.Error("an object that was made again was overwritten")
	}
}

// TestALostVersionComesBackFromABackup types the commands of docs/lost-key.md that bring a key back: an archived
// version, a soft-deleted key, and a trimmed version from a backup. It expects that an API server that could not
// become ready becomes ready by itself, and that nothing was deleted.
func TestALostVersionComesBackFromABackup(t *testing.T) {
	t.Parallel()
	l := loseVersionOne(t)
	l.restartsUnready(t)
	l.types(t, "min_decryption_version=1")
	must(t, l.api.UntilOK(ready))
	l.api.requireList(t, 5)

	_, err := l.Bao.Ask("DELETE", "transit/keys/"+cluster.Key+"/soft-delete", nil)
	must(t, err)
	l.types(t, "soft-delete-restore")
	l.configureKey(t, "config", map[string]any{"min_decryption_version": 2})
	l.trim(t)
	if _, err := l.Bao.Ask("POST", "transit/keys/"+cluster.Key+"/config", map[string]any{"min_decryption_version": 1}); err == nil ||
		!strings.Contains(err.Error(), "min decryption version") {
		t.Errorf("a trimmed version is asked for: %v", err)
	}
	l.restartsUnready(t)
	l.types(t, "kubernetes-check backup=")
	l.types(t, "force=true")
	l.types(t, "--no-headers")
	l.api.requireList(t, 5)
	l.requireStored(t, slices.Concat(l.old, l.recent)...)
	l.api.migrate(t)
	if id := l.onlyKeyID(t); !strings.HasPrefix(id, "v2.") {
		t.Errorf("Secrets are stored under %s", id)
	}
}

// TestAnAPIServerThatWasNotRestartedStillReadsLostObjects expects that the memory of an API server is enough to write
// each object again after the loss of a version.
func TestAnAPIServerThatWasNotRestartedStillReadsLostObjects(t *testing.T) {
	t.Parallel()
	l := loseVersionOne(t)
	l.trim(t)
	l.types(t, "kubectl replace -f /dev/shm/secrets.json")
	if id := l.onlyKeyID(t); !strings.HasPrefix(id, "v2.") {
		t.Errorf("Secrets are stored under %s", id)
	}
	l.restartAPIServer(t)
	l.api.requireList(t, 5)
}

// TestLostObjectsAreDeletedInEtcd types the commands of docs/lost-key.md for an API server without the feature gate.
// It expects that a running API server becomes ready by itself, and that exactly the lost Secrets are deleted.
func TestLostObjectsAreDeletedInEtcd(t *testing.T) {
	t.Parallel()
	l := loseVersionOne(t)
	l.trim(t)
	l.restartsUnready(t)
	// Kubernetes 1.31 may not answer a list before its own time-out.
	refused := secrets
	if l.api.minor(t) < 32 {
		refused += "/old-1"
	}
	l.requireRefused(t, refused, "failed to decrypt DEK", "version-retired: ")
	l.types(t, "> lost.txt")
	l.requireFile(t, "lost.txt", "", l.old)
	l.adds(t, "lost.txt", secrets+"/recent-1\n")
	l.types(t, "etcdctl del")
	l.requireStored(t, l.recent...)
	// Kubernetes 1.31 may be ready and still answer a list with 429 for a moment. kubectl asks again.
	l.types(t, "--no-headers")
	l.api.requireList(t, len(l.recent))
}

// TestUnsafeDeletionDeletesAReadableObjectDuringAnOutage expects what docs/lost-key.md warns of: the API server takes
// an outage of the keeper for a corrupt object. The commands of the document keep the object.
func TestUnsafeDeletionDeletesAReadableObjectDuringAnOutage(t *testing.T) {
	t.Parallel()
	c := start(t)
	l := &loss{controlPlane: c, dir: shortDir(t)}
	l.requireUnsafeDeletion(t)
	c.api.mustCreate(t, "readable-1", "readable-2")
	c.Bao.Kill()
	// No object is on the list of a drill without a keeper.
	snapshot, listed := filepath.Join(l.dir, "snapshot.db"), filepath.Join(l.dir, "unreadable.txt")
	must(t, c.Etcd.Save(snapshot))
	ctl(t, noAnswer, append([]string{"drill", "--wait=1", "--snapshot=" + snapshot, "--list-unreadable=" + listed, "--"}, c.Tenant.Flags()...)...)
	if _, err := os.Stat(listed); !os.IsNotExist(err) {
		t.Errorf("a drill without a keeper lists objects: %v", err)
	}
	l.startsWithoutMemory(t, unsafeDeletion)
	c.api.waitFor(t, secrets+"/readable-1", http.StatusInternalServerError, time.Minute)
	must(t, os.WriteFile(filepath.Join(l.dir, "lost.txt"), []byte(secrets+"/readable-1\n"), 0o600))
	block := suite.Consoles(t, lostKey)
	guarded := block[slices.IndexFunc(block, func(steps []suite.Typed) bool {
		return strings.Contains(steps[len(steps)-1].Command, "deleted.txt")
	})]
	must(t, c.WriteEnvironment())
	// Without the two steps before, that tell of the outage.
	script := "cd " + l.dir + "; . " + cluster.EnvironmentFile(c.Dir) + "\n"
	for _, step := range guarded[2:] {
		script += step.Command + "\n"
	}
	out, err := parts.Command("timeout", "60", "bash", "-c", script).CombinedOutput()
	if err != nil || string(out) != "KEPT "+secrets+"/readable-1\n" {
		t.Errorf("the commands of the document print: %v: %s", err, out)
	}
	l.requireStored(t, "readable-1", "readable-2")

	option := json.RawMessage(`{"apiVersion":"v1","kind":"DeleteOptions","ignoreStoreReadErrorWithClusterBreakingPotential":true}`)
	must(t, c.api.ask("DELETE", secrets+"/readable-1", http.StatusOK, option, nil))
	l.requireStored(t, "readable-2")
}

// TestAKeyThatWasMadeAgainComesBackFromABackup expects that objects of a key that was deleted and made again are read
// after the restore of the former key and a restart of the provider. Before the restart it is an incident.
func TestAKeyThatWasMadeAgainComesBackFromABackup(t *testing.T) {
	t.Parallel()
	l := loseVersionOne(t)
	key := "transit/keys/" + cluster.Key
	l.configureKey(t, "config", map[string]any{"deletion_allowed": true})
	_, err := l.Bao.Ask("DELETE", key, nil)
	must(t, err)
	must(t, l.Tenant.MakeKey())
	l.plugin.Stop()
	must(t, l.plugin.Restart())
	l.restartsUnready(t)
	l.requireRefused(t, secrets+"/old-1", "key-id-unknown: ")
	l.types(t, "force=true")
	// The provider took the new key for the true one at its start.
	if !parts.EventuallyEvery(250*time.Millisecond, time.Minute, func() bool { return !l.plugin.Healthy() }) {
		t.Error("the provider does not report that the key was replaced")
	}
	l.plugin.Stop()
	must(t, l.plugin.Restart())
	l.types(t, "--no-headers")
	l.api.requireList(t, 5)
}

// TestAProviderThatWasRemovedIsPutBack expects that the API server names no key for an object of a provider that the
// EncryptionConfiguration lacks, and that the object is read when the provider is back.
func TestAProviderThatWasRemovedIsPutBack(t *testing.T) {
	t.Parallel()
	former := func(endpoint string) string {
		return cluster.Encrypting("secrets", cluster.AESCBC, cluster.KMS(endpoint))
	}
	l := &loss{controlPlane: start(t, encrypting(former))}
	l.api.mustCreate(t, "one")
	must(t, l.Nodes[0].Configure(cluster.Encrypting("secrets", cluster.KMS(l.plugin.Endpoint))))
	l.restartsUnready(t)
	l.requireRefused(t, secrets+"/one", "no matching prefix found")
	l.reconfigure(t, cluster.KMS(l.plugin.Endpoint), cluster.AESCBC)
	l.api.requireReads(t, "one")
}

// requireForbidden requires that a user with these verbs may not use the unsafe deletion.
func (l *loss) requireForbidden(t *testing.T, verbs string) {
	t.Helper()
	must(t, l.WriteEnvironment())
	out, _ := parts.Command("bash", "-c", ". "+cluster.EnvironmentFile(l.Dir)+`
kubectl create role half --verb=`+verbs+` --resource=secrets && kubectl create rolebinding half --role=half --user=bob
until kubectl auth can-i delete secrets --as=bob >/dev/null; do sleep 0.1; done
echo '{"apiVersion":"v1","kind":"DeleteOptions","ignoreStoreReadErrorWithClusterBreakingPotential":true}' |
	kubectl delete --as=bob --raw `+secrets+`/old-1 -f -`).CombinedOutput()
	if !strings.Contains(string(out), "Forbidden") || !strings.Contains(string(out), "unsafe-delete-ignore-read-errors") {
		t.Errorf("a user with only %s: %s", verbs, out)
	}
}

func (l *loss) readBackup(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile(l.backup)
	must(t, err)
	return string(text)
}
