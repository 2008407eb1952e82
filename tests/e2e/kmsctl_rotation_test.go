package e2e_test

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"vault-kube-kms.test/cluster"
	"vault-kube-kms.test/parts"
)

// rotationView is what the command rotation prints as JSON.
type rotationView struct {
	Phase    string
	Version  int
	Left     *int
	InS      int `json:"in_s"`
	Findings []struct{ Name, Code string }
	Nodes    []struct {
		Name, State    string
		Writes, Newest int
		TakesOverInS   *int `json:"takes_over_in_s"`
	}
	APIServers []struct {
		Name     string
		Answered bool
		Told     int
	} `json:"api_servers"`
}

// rotationFlags names both nodes and both API servers of a cluster.
func (c *controlPlane) rotationFlags(t *testing.T) []string {
	t.Helper()
	must(t, c.WriteEnvironment())
	flags := []string{"rotation", "--kubeconfig=" + filepath.Join(c.Dir, "kubeconfig")}
	for index, node := range c.Nodes {
		flags = append(flags, fmt.Sprintf("--node=cp-%d=http://%s", index+1, node.Plugin.MetricsAddress()),
			fmt.Sprintf("--api-server=node-%d", index+1))
	}
	return flags
}

func (v rotationView) codes() (codes []string) {
	for _, finding := range v.Findings {
		codes = append(codes, finding.Name+" "+finding.Code)
	}
	return codes
}

// TestTheViewOfARotation follows a rotation over two nodes from before it to its end.
func TestTheViewOfARotation(t *testing.T) {
	t.Parallel()
	c := start(t, delayed(30*time.Second), func(s *cluster.Settings) { s.Replicas = 2 })
	servers := []api{c.api, {c.Nodes[1].APIServer}}
	for index, server := range servers {
		server.mustCreate(t, fmt.Sprintf("before-%d", index))
	}
	flags := c.rotationFlags(t)
	view := func(code int, more ...string) (view rotationView) {
		ctl(t, code, slices.Concat(flags, []string{"--output=json"}, more)...).answer(t, &view)
		return view
	}
	before := view(good)
	if before.Phase != "steady" || before.Version != 1 || len(before.Nodes) != 2 || len(before.Findings) > 0 {
		t.Errorf("before the rotation: %+v", before)
	}
	for _, server := range before.APIServers {
		if !server.Answered || server.Told != 1 {
			t.Errorf("before the rotation: %+v", server)
		}
	}
	saved := filepath.Join(shortDir(t), "cp-1.json")
	save(t, c.Nodes[0].Plugin, saved)

	must(t, c.Rotate())
	if next := view(bad, "--expect=2"); next.Version != 2 || next.Phase != "unread" && next.Phase != "takeover" {
		t.Errorf("after the rotation: %+v", next)
	}
	var waits rotationView
	if !parts.EventuallyEvery(500*time.Millisecond, 25*time.Second, func() bool {
		waits = view(bad, "--expect=2")
		return waits.Phase == "takeover" && waits.InS > 0
	}) {
		t.Fatalf("no takeover is due: %+v", waits)
	}
	for _, node := range waits.Nodes {
		if node.Writes != 1 || node.Newest != 2 || node.TakesOverInS == nil {
			t.Errorf("before the takeover: %+v", node)
		}
	}
	text := ctl(t, bad, flags...).stdout
	if !strings.Contains(text, "Version 2 takes over in ") || !strings.Contains(text, " --watch") {
		t.Error(text)
	}
	// The state that was saved before the rotation does not know version 2.
	behind := slices.Clone(flags)
	behind[slices.IndexFunc(behind, func(flag string) bool { return strings.HasPrefix(flag, "--node=cp-1=") })] = "--node=cp-1=" + saved
	var old rotationView
	ctl(t, bad, append(behind, "--output=json")...).answer(t, &old)
	if old.Phase != "unread" || !slices.Contains(old.codes(), "cp-1 version-unread") {
		t.Errorf("with a saved state: %+v", old)
	}

	// Two addresses may lead to one node. The node that is left out would not be missed.
	twice := []string{"--node=cp-1=http://" + c.plugin.MetricsAddress(), "--node=cp-2=" + saved}
	for _, command := range [][]string{{"rotation"}, {"inventory", "--etcd-servers=" + c.Etcd.URL}} {
		if same := ctl(t, noAnswer, append(command, twice...)...); !strings.Contains(same.stderr, "the nodes cp-1 and cp-2 are one process") {
			t.Errorf("%s: %s", command[0], same.stderr)
		}
	}

	// Requests for their health make the API servers ask for Status more often than once a minute.
	asked := repeatedly(t, 1, time.Second, func(string) error {
		for _, server := range servers {
			_, _ = server.answers(kmsReady)
		}
		return nil
	})
	watched := ctl(t, good, slices.Concat(flags, []string{"--watch", "--expect=2", "--timeout=2m"})...)
	asked.stop()
	for _, expected := range []string{"Version 2 takes over in ", "All write version 2.", "vault-kube-kmsctl rewrite"} {
		if !strings.Contains(watched.stdout, expected) {
			t.Errorf("%q is missing in:\n%s", expected, watched.stdout)
		}
	}
	if after := view(good, "--expect=2"); after.Phase != "rewrite" || after.Version != 2 {
		t.Errorf("after the rotation: %+v", after)
	}

	// etcd says what is left, before and after a migration.
	etcd := "--etcd-servers=" + c.Etcd.URL
	if counted := view(good, etcd); counted.Phase != "rewrite" || counted.Left == nil || *counted.Left < 2 {
		t.Errorf("before the migration: %+v", counted)
	}
	// The API servers are not named, and a node has not written version 2 for ten minutes.
	onlyNodes := slices.DeleteFunc(slices.Clone(flags), func(flag string) bool { return !strings.HasPrefix(flag, "--node=") })
	var settling rotationView
	ctl(t, bad, slices.Concat([]string{"rotation", "--output=json", etcd}, onlyNodes)...).answer(t, &settling)
	if settling.Phase != "settling" || settling.InS < 1 || settling.InS > 600 {
		t.Errorf("without the API servers: %+v", settling)
	}
	c.api.migrate(t)
	if wrong := ctl(t, noAnswer, slices.Concat(flags, []string{etcd, "--etcd-prefix=registry,regstry"})...); !strings.Contains(wrong.stderr, "has no objects below /regstry/") {
		t.Error(wrong.stderr)
	}
	if done := view(good, etcd); done.Phase != "done" {
		t.Errorf("after the migration: %+v", done)
	}

	// A version that does not come ends the watch at its time-out.
	late := ctl(t, bad, slices.Concat(flags, []string{"--watch", "--expect=9", "--timeout=1s"})...)
	if !strings.Contains(late.stderr, "not complete after 1 s") {
		t.Error(late.stderr)
	}

	// One node that does not answer hides nothing of the other one.
	c.Nodes[1].Plugin.Kill()
	silent := view(bad)
	if silent.Phase != "rewrite" || silent.Nodes[0].Writes != 2 || !slices.Contains(silent.codes(), "cp-2 node-unreachable") {
		t.Errorf("with one silent node: %+v", silent)
	}
	if none := ctl(t, noAnswer, "rotation", "--node=cp-2=http://"+c.Nodes[1].Plugin.MetricsAddress()); !strings.Contains(none.stderr, "no-answer") {
		t.Error(none.stderr)
	}
}

// save writes the state of a plugin into a file.
func save(t *testing.T, plugin *parts.Plugin, file string) {
	t.Helper()
	answer, err := http.Get("http://" + plugin.MetricsAddress() + "/statusz?format=json")
	must(t, err)
	defer answer.Body.Close()
	state, err := io.ReadAll(answer.Body)
	must(t, err)
	must(t, os.WriteFile(file, state, 0o600))
}
