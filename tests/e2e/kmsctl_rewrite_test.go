package e2e_test

import (
	"bytes"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"syscall"
	"testing"
	"time"

	"vault-kube-kms.test/cluster"
	"vault-kube-kms.test/parts"
)

// rewritten is the answer of vault-kube-kmsctl rewrite.
type rewritten struct {
	Passes      int
	NothingLeft bool `json:"nothing_left"`
	Verdict     string
	Resources   []struct {
		Resource                                string
		Objects, Rewritten, Fresh, Gone, Failed int
		ByOthers                                int `json:"by_others"`
	}
	Failures []struct{ Resource, Object, Why string }
	Etcd     struct {
		Stored []struct {
			Resource, Example string
			KeyID             string `json:"key_id"`
			Objects           int
			IsLeft            bool `json:"is_left"`
		}
	}
}

// rewriteArgs returns the arguments of a rewrite with an API server. as is a user to impersonate, or empty.
func rewriteArgs(t *testing.T, a api, as string, args ...string) []string {
	t.Helper()
	file := filepath.Join(shortDir(t), "kubeconfig")
	user := map[string]string{"token": a.Token}
	if as != "" {
		user["as"] = as
	}
	text, err := json.Marshal(object{
		"apiVersion": "v1", "kind": "Config", "current-context": "c",
		"clusters": []object{{"name": "c", "cluster": object{"server": a.URL, "certificate-authority": a.CAFile}}},
		"users":    []object{{"name": "c", "user": user}},
		"contexts": []object{{"name": "c", "context": object{"cluster": "c", "user": "c"}}},
	})
	must(t, err)
	must(t, os.WriteFile(file, text, 0o600))
	return append([]string{"rewrite", "--kubeconfig=" + file, "--output=json"}, args...)
}

// rewrite runs a rewrite at full speed to its end.
func rewrite(t *testing.T, code int, a api, args ...string) (answer rewritten) {
	t.Helper()
	ctl(t, code, rewriteArgs(t, a, "", append([]string{"--rate=1000"}, args...)...)...).answer(t, &answer)
	return answer
}

// launchRewrite starts a rewrite and does not wait.
func launchRewrite(t *testing.T, a api, args ...string) *parts.Process {
	t.Helper()
	p, err := parts.Way{}.Start("rewrite", append([]string{needed(t, "KMSCTL")}, rewriteArgs(t, a, "", args...)...))
	must(t, err)
	t.Cleanup(p.Kill)
	return p
}

// local uses a keeper that needs no server, and writes with a new version at once.
func local(s *cluster.Settings) {
	s.Keeper = cluster.Local
	delayed(0)(s)
}

// revisions returns the revision of each object below the prefixes in etcd.
func (c *controlPlane) revisions(t *testing.T, prefixes ...string) map[string]int64 {
	t.Helper()
	revisions := map[string]int64{}
	for _, prefix := range prefixes {
		entries, err := c.Etcd.Under(prefix)
		must(t, err)
		for _, entry := range entries {
			revisions[entry.Key] = entry.ModRevision
		}
	}
	return revisions
}

// notUnder returns the objects below a prefix that are not stored under a key id.
func (c *controlPlane) notUnder(t *testing.T, id, prefix string) (keys []string) {
	t.Helper()
	entries, err := c.Etcd.Under(prefix)
	must(t, err)
	for _, entry := range entries {
		if o := (stored{raw: entry.Value}).object(t, cluster.Provider); o == nil || o.KeyID != id {
			keys = append(keys, entry.Key)
		}
	}
	return keys
}

// contents returns the objects of a list by their names, without their resourceVersions.
func contents(t *testing.T, a api, path string) map[string]object {
	t.Helper()
	var list struct{ Items []object }
	must(t, a.ask("GET", path, http.StatusOK, nil, &list))
	all := map[string]object{}
	for _, item := range list.Items {
		meta := item["metadata"].(object)
		delete(meta, "resourceVersion")
		all[meta["name"].(string)] = item
	}
	return all
}

// denier is a webhook that denies every write.
func denier(t *testing.T) (url string, authority []byte) {
	t.Helper()
	server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var review struct{ Request struct{ UID string } }
		body, _ := io.ReadAll(r.Body)
		_ = json.Unmarshal(body, &review)
		_ = json.NewEncoder(w).Encode(object{
			"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview",
			"response": object{"uid": review.Request.UID, "allowed": false, "status": object{"message": "canary-of-webhook"}},
		})
	}))
	t.Cleanup(server.Close)
	return server.URL, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})
}

// oddSecrets are Secrets that were in the way of other migrations.
var oddSecrets = []object{
	{"metadata": object{"name": "immutable"}, "immutable": true},
	{"metadata": object{"name": "owned", "ownerReferences": []object{{
		"apiVersion": "v1", "kind": "ConfigMap", "name": "gone", "uid": "00000000-0000-0000-0000-000000000001",
	}}}},
	{"metadata": object{"name": "token", "annotations": object{"kubernetes.io/service-account.name": "gone"}},
		"type": "kubernetes.io/service-account-token"},
	{"metadata": object{"name": "helm", "labels": object{"owner": "helm"}}, "type": "helm.sh/release.v1",
		"data": object{"release": strings.Repeat("QUJD", 100_000)}},
	{"metadata": object{"name": "dying", "finalizers": []string{"example.org/never"}}},
}

// TestRewrite expects that each object of each kind is stored again with its content, and nothing but what was
// asked for; that failures are named and do not stop the rest; and that only its rights are needed.
func TestRewrite(t *testing.T) {
	t.Parallel()
	c := start(t, local, encrypting(func(endpoint string) string {
		return cluster.Encrypting("*.*", cluster.KMS(endpoint), cluster.Identity)
	}))
	createMany(t, c.api, 0, 230)
	for _, secret := range oddSecrets {
		secret["apiVersion"], secret["kind"] = "v1", "Secret"
		must(t, c.api.ask("POST", secrets, http.StatusCreated, secret, nil))
	}
	must(t, c.api.ask("DELETE", secrets+"/dying", http.StatusOK, nil, nil))
	for _, kind := range kinds[1:] {
		c.api.waitFor(t, kind.path, http.StatusOK, time.Minute)
		must(t, c.api.ask("POST", kind.path, http.StatusCreated, kind.object, nil))
	}
	// A webhook that denies, and one that is not there.
	deny, authority := denier(t)
	c.refuse(t, "deny.example.org", deny, authority)
	c.refuse(t, "away.example.org", "https://"+parts.FreeAddress(), authority)
	for _, name := range []string{"deny.example.org", "away.example.org"} {
		must(t, c.api.ask("POST", secrets, http.StatusCreated, object{
			"apiVersion": "v1", "kind": "Secret", "metadata": object{"name": name, "labels": object{"refused-by": name}},
		}, nil))
	}
	must(t, c.Rotate())
	id := c.writesUnder(t, c.api, c.keyIDOf(t, "immutable"))
	all := "--resource=secrets,configmaps,widgets.example.org"
	prefixes := []string{"/registry/secrets/", "/registry/configmaps/", "/registry/example.org/"}
	paths := []string{"/api/v1/secrets", "/api/v1/configmaps", "/apis/example.org/v1/widgets"}

	// A dry run writes nothing and finds what would fail. A selector limits what is written.
	before := c.revisions(t, prefixes...)
	if answer := rewrite(t, bad, c.api, all, "--dry-run"); answer.NothingLeft || answer.Resources[1].Failed != 2 {
		t.Errorf("dry run: %+v", answer)
	}
	if after := c.revisions(t, prefixes...); !reflect.DeepEqual(before, after) {
		t.Error("the dry run has written")
	}
	if answer := rewrite(t, good, c.api, "--resource=secrets", "--selector=owner=helm"); answer.Resources[0].Rewritten != 1 {
		t.Errorf("with a selector: %+v", answer)
	}
	for key, revision := range c.revisions(t, prefixes...) {
		if written := revision != before[key]; written != (key == "/registry/secrets/default/helm") {
			t.Errorf("with a selector, %s is written: %v", key, written)
		}
	}
	if answer := rewrite(t, good, c.api, "--resource=secrets", "--namespace=kube-system"); answer.Resources[0].Rewritten != 0 {
		t.Errorf("in another namespace: %+v", answer)
	}

	// A user needs the printed role.
	missing := ctl(t, noAnswer, rewriteArgs(t, c.api, "rewriter", all)...)
	if !strings.Contains(missing.stderr, "forbidden: ") || !strings.Contains(missing.stderr, "--print-role") {
		t.Errorf("without rights: %s", missing.stderr)
	}
	all += ",clusterroles.rbac.authorization.k8s.io"
	c.grant(t, "rewriter", ctl(t, good, "rewrite", "--print-role", all).stdout)

	contentsBefore := map[string]map[string]object{}
	for _, path := range paths {
		contentsBefore[path] = contents(t, c.api, path)
	}
	var answer rewritten
	ran := ctl(t, bad, rewriteArgs(t, c.api, "rewriter", all, "--rate=1000")...)
	ran.answer(t, &answer)
	t.Logf("%s", ran.stdout)
	if len(answer.Failures) != 2 || answer.NothingLeft || strings.Contains(ran.stdout+ran.stderr, "canary") {
		t.Errorf("%s%s", ran.stdout, ran.stderr)
	}
	for _, failure := range answer.Failures {
		if name := strings.TrimPrefix(failure.Object, "default/"); !strings.Contains(failure.Why, name) {
			t.Errorf("%s fails with %s", failure.Object, failure.Why)
		}
	}
	for _, prefix := range prefixes {
		left := c.notUnder(t, id, prefix)
		if prefix == prefixes[0] && len(left) != 2 || prefix != prefixes[0] && len(left) != 0 {
			t.Errorf("left: %q", left)
		}
	}
	for _, path := range paths {
		if after := contents(t, c.api, path); !reflect.DeepEqual(contentsBefore[path], after) {
			for name, item := range after {
				if !reflect.DeepEqual(item, contentsBefore[path][name]) {
					t.Errorf("%s %s has changed: %v", path, name, item["metadata"])
				}
			}
		}
	}

	// Once the causes are away, the rest is done, and then nothing is left to write.
	for _, name := range []string{"deny.example.org", "away.example.org"} {
		must(t, c.api.ask("DELETE", webhooks+"/"+name, http.StatusOK, nil, nil))
	}
	secretsIn := []string{"--resource=secrets", "--etcd-servers=" + c.Etcd.URL, "--until-key-id=" + id}
	if !parts.EventuallyEvery(time.Second, time.Minute, func() bool {
		return rewriteEnds(t, c.api, append(secretsIn, "--dry-run")...)
	}) {
		t.Fatal("the rewrite would fail without webhooks")
	}
	// With etcd, only what is left is tried.
	answer = rewrite(t, good, c.api, secretsIn...)
	if !answer.NothingLeft || answer.Resources[0].Rewritten != 2 || answer.Resources[0].Objects != 0 || len(answer.Etcd.Stored) != 1 {
		t.Errorf("with etcd: %+v", answer)
	}
	for _, prefix := range prefixes {
		if left := c.notUnder(t, id, prefix); len(left) != 0 {
			t.Errorf("left: %q", left)
		}
	}
	before = c.revisions(t, prefixes...)
	answer = rewrite(t, good, c.api, all, "--etcd-servers="+c.Etcd.URL)
	for _, found := range answer.Etcd.Stored {
		if found.IsLeft || found.KeyID != id {
			t.Errorf("in etcd: %+v", found)
		}
	}
	if len(answer.Etcd.Stored) != 4 {
		t.Errorf("in etcd: %+v", answer.Etcd)
	}
	if answer.Passes != 1 || !answer.NothingLeft {
		t.Errorf("a second rewrite: %+v", answer)
	}
	if after := c.revisions(t, prefixes...); !reflect.DeepEqual(before, after) {
		t.Error("a second rewrite writes")
	}
	// An API server that writes under another key id leaves what etcd shows.
	answer = rewrite(t, bad, c.api, "--resource=secrets", "--etcd-servers="+c.Etcd.URL, "--until-key-id=v9.other")
	if answer.NothingLeft || len(answer.Etcd.Stored) != 1 || !answer.Etcd.Stored[0].IsLeft {
		t.Errorf("with another key id: %+v", answer)
	}
	unknown := ctl(t, noAnswer, rewriteArgs(t, c.api, "", "--resource=gadgets.example.org")...)
	if !strings.Contains(unknown.stderr, "resource-not-served: ") {
		t.Error(unknown.stderr)
	}
}

// change writes another value beside the one of a Secret.
func (a api) change(name string) error {
	before, err := a.read(name)
	if err != nil {
		return err
	}
	before.APIVersion, before.Kind = "v1", "Secret"
	before.Data["turn"] = []byte(parts.RandomName())
	return a.ask("PUT", secrets+"/"+name, http.StatusOK, before, nil)
}

// rewriteEnds reports whether a rewrite leaves nothing.
func rewriteEnds(t *testing.T, a api, args ...string) bool {
	t.Helper()
	command := parts.Command(append([]string{needed(t, "KMSCTL")}, rewriteArgs(t, a, "", args...)...)...)
	return command.Run() == nil
}

const webhooks = "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations"

// refuse registers a webhook for changes of the Secrets with its label, and waits until it works.
func (c *controlPlane) refuse(t *testing.T, name, url string, authority []byte) {
	t.Helper()
	must(t, c.api.ask("POST", webhooks, http.StatusCreated, object{
		"apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingWebhookConfiguration",
		"metadata": object{"name": name},
		"webhooks": []object{{
			"name": name, "admissionReviewVersions": []string{"v1"}, "sideEffects": "None", "timeoutSeconds": 2,
			"clientConfig":   object{"url": url, "caBundle": authority},
			"objectSelector": object{"matchLabels": object{"refused-by": name}},
			"rules": []object{{
				"operations": []string{"UPDATE"}, "apiGroups": []string{""}, "apiVersions": []string{"v1"}, "resources": []string{"secrets"},
			}},
		}},
	}, nil))
	probe := object{"apiVersion": "v1", "kind": "Secret", "metadata": object{"name": "probe-of-" + name, "labels": object{"refused-by": name}}}
	must(t, c.api.ask("POST", secrets, http.StatusCreated, probe, nil))
	path := secrets + "/probe-of-" + name
	if !parts.Eventually(time.Minute, func() bool {
		return c.api.ask("PUT", path, http.StatusOK, probe, nil) != nil
	}) {
		t.Fatalf("%s refuses nothing", name)
	}
	must(t, c.api.ask("DELETE", path, http.StatusOK, nil, nil))
}

// grant gives a ClusterRole, written in YAML, to a user.
func (c *controlPlane) grant(t *testing.T, user, role string) {
	t.Helper()
	file := filepath.Join(shortDir(t), "role.yaml")
	must(t, os.WriteFile(file, []byte(role), 0o600))
	kubectl := func(args ...string) {
		t.Helper()
		args = append([]string{
			filepath.Join(c.Programs.Kubernetes, "kubectl"), "--server=" + c.api.URL,
			"--certificate-authority=" + c.api.CAFile, "--token=" + c.api.Token,
			"--cache-dir=" + shortDir(t),
		}, args...)
		if out, err := parts.Command(args...).CombinedOutput(); err != nil {
			t.Fatalf("kubectl %q: %v: %s", args[5:], err, out)
		}
	}
	kubectl("apply", "-f", file)
	kubectl("create", "clusterrolebinding", user, "--clusterrole=vault-kube-kmsctl-rewrite", "--user="+user)
}

// TestRewriteGoesOn interrupts a rewrite by a SIGKILL of itself, by a restart of the API server, by a rotation and
// by other writers. It expects that nothing is left under an old key id at its end.
func TestRewriteGoesOn(t *testing.T) {
	t.Parallel()
	c := start(t, local)
	const count = 450
	createMany(t, c.api, 0, count)
	first := c.onlyKeyID(t)
	must(t, c.Rotate())
	second := c.writesUnder(t, c.api, first)
	state := filepath.Join(shortDir(t), "state.json")
	args := []string{"--resource=secrets", "--state=" + state, "--rate=150", "--parallel=2"}
	under := func(id string) int { return c.keyIDs(t)[id] }
	reaches := func(id string, number int) {
		t.Helper()
		if !parts.Eventually(time.Minute, func() bool { return under(id) >= number }) {
			t.Fatalf("%d objects are under %s", under(id), id)
		}
	}

	killed := launchRewrite(t, c.api, args...)
	reaches(second, 150)
	killed.Kill()
	if left := under(first); left == 0 {
		t.Fatal("the rewrite was at its end before it was killed")
	}
	text, err := os.ReadFile(state)
	must(t, err)
	if strings.Contains(string(text), "canary") {
		t.Error("the state has a value")
	}
	ctl(t, noAnswer, rewriteArgs(t, c.api, "", append(args, "--namespace=default")...)...)

	// It goes on where it was, while the API server restarts and others write.
	goesOn := launchRewrite(t, c.api, args...)
	reaches(second, 250)
	c.restartAPIServer(t)
	writers := repeatedly(t, 2, 0, func(name string) error {
		// The last ones, so that the rewrite meets them.
		return c.api.change(fmt.Sprintf("s-%05d", count-1-len(name)%2))
	})
	reaches(second, 350)
	// It stands still until the API server writes under the next key id.
	goesOn.Signal(syscall.SIGSTOP)
	must(t, c.Rotate())
	third := c.writesUnder(t, c.api, second)
	goesOn.Signal(syscall.SIGCONT)
	if !goesOn.EndsWithin(2 * time.Minute) {
		t.Fatal("the rewrite does not end")
	}
	writers.stop()
	var answer rewritten
	must(t, json.Unmarshal([]byte(goesOn.Stdout.String()), &answer))
	t.Logf("%s%s", goesOn.Stdout.String(), goesOn.Stderr.String())
	if goesOn.ExitCode() != good || !answer.NothingLeft || answer.Passes < 2 {
		t.Errorf("exit code %d: %+v", goesOn.ExitCode(), answer)
	}
	if _, err := os.Stat(state); !os.IsNotExist(err) {
		t.Errorf("the state is left: %v", err)
	}
	if id := c.onlyKeyID(t); id != third {
		t.Errorf("the objects are under %s and not %s", id, third)
	}

	// An API server that does not come back ends it, and the state is kept.
	gone := launchRewrite(t, c.api, append(args, "--patience=1")...)
	if !parts.Eventually(time.Minute, func() bool { _, err := os.Stat(state); return err == nil }) {
		t.Fatal("no state is saved")
	}
	c.api.Kill()
	if !gone.EndsWithin(time.Minute) || gone.ExitCode() != noAnswer || !strings.Contains(gone.Stderr.String(), "api-server-unavailable: ") {
		t.Errorf("without an API server: %s", gone.Stderr.String())
	}
	must(t, c.api.Start())
	ctl(t, good, rewriteArgs(t, c.api, "", args...)...)
	if ids := c.keyIDs(t); len(ids) != 1 {
		t.Errorf("after all: %v", ids)
	}
}

// TestRewriteBesideAnUnreadableObject expects that an object that no key can open is named, and that with etcd
// all others are stored again.
func TestRewriteBesideAnUnreadableObject(t *testing.T) {
	t.Parallel()
	c := start(t, local)
	createMany(t, c.api, 0, 20)
	first := c.onlyKeyID(t)
	// The value of another object under the former key id: the API server binds each value to its key.
	value := c.stored(t)[0].raw
	must(t, c.Rotate())
	id := c.writesUnder(t, c.api, first)
	const lost = "/registry/secrets/default/s-00007-lost"
	put, err := json.Marshal(map[string][]byte{"key": []byte(lost), "value": value})
	must(t, err)
	answered, err := http.Post(c.Etcd.URL+"/v3/kv/put", "application/json", bytes.NewReader(put))
	must(t, err)
	must(t, answered.Body.Close())

	answer := rewrite(t, bad, c.api, "--resource=secrets")
	t.Logf("%+v", answer)
	if len(answer.Failures) != 1 || answer.Failures[0].Object != "" || !strings.Contains(answer.Failures[0].Why, lost) {
		t.Errorf("without etcd: %+v", answer)
	}
	answer = rewrite(t, bad, c.api, "--resource=secrets", "--etcd-servers="+c.Etcd.URL, "--until-key-id="+id)
	t.Logf("%+v", answer)
	if len(answer.Failures) != 1 || answer.Failures[0].Object != "default/s-00007-lost" ||
		!strings.Contains(answer.Failures[0].Why, "cannot decrypt") {
		t.Errorf("with etcd: %+v", answer)
	}
	if left := c.notUnder(t, id, "/registry/secrets/"); len(left) != 1 || left[0] != lost {
		t.Errorf("left: %q", left)
	}
}
