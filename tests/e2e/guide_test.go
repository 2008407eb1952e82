package e2e_test

import (
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"vault-kube-kms.test/cluster"
	"vault-kube-kms.test/parts"
)

// TestTheGuide types the commands that `cargo xtask cluster up` prints, and expects that they work.
func TestTheGuide(t *testing.T) {
	t.Parallel()
	for _, keeper := range []cluster.Keeper{cluster.OpenBao, cluster.Local} {
		t.Run(string(keeper), func(t *testing.T) {
			t.Parallel()
			c := start(t, func(s *cluster.Settings) { s.Keeper, s.Replicas = keeper, 2 })
			must(t, c.WriteEnvironment())
			var printed strings.Builder
			for _, step := range c.Guide() {
				out, err := parts.Command("bash", "-ec", ". "+cluster.EnvironmentFile(c.Dir)+"; "+step.Type).CombinedOutput()
				if err != nil {
					t.Fatalf("%s: %v: %s", step.Type, err, out)
				}
				printed.Write(out)
			}
			for _, expected := range []string{
				"secret/demo created", "k8s:enc:kms:v2:" + cluster.Provider, "\ncorrect-horse\n", "secret/demo replaced",
			} {
				if !strings.Contains(printed.String(), expected) {
					t.Errorf("%q is not in %s", expected, &printed)
				}
			}
		})
	}
}

// TestALaterProcessEndsTheCluster expects that a later process ends the cluster by its state file, and
// ends no other process.
func TestALaterProcessEndsTheCluster(t *testing.T) {
	t.Parallel()
	c := start(t, func(s *cluster.Settings) { s.Keeper = cluster.Local })
	bystander := start(t, func(s *cluster.Settings) { s.Keeper = cluster.Local })
	state, err := cluster.Load(c.Dir)
	must(t, err)
	if !state.Alive() || len(state.Processes) != 3 {
		t.Errorf("the state file says that %v run", state.Processes)
	}
	must(t, cluster.End(c.Dir, func(text string) { t.Log(text) }))
	for _, process := range []*parts.Process{c.plugin.Process, c.api.Process, c.Etcd.Process} {
		if !process.EndsWithin(parts.StopBound) {
			t.Errorf("process %d still runs", process.Pid())
		}
	}
	if !bystander.plugin.Alive() || !bystander.api.Alive() {
		t.Error("another process was ended")
	}
	// It can be done twice.
	must(t, cluster.End(c.Dir, func(text string) { t.Log(text) }))
}

// The command behind `cargo xtask cluster`: up, status, up again, down, down again.
func TestTheCommand(t *testing.T) {
	t.Parallel()
	needed(t, "KUBERNETES")
	program := filepath.Join(shortDir(t), "ctl")
	out, err := exec.Command("go", "build", "-o", program, "../cluster/ctl").CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	dir := filepath.Join(shortDir(t), "cluster")
	t.Cleanup(func() { _ = cluster.End(dir, func(string) {}) })
	for _, step := range []struct {
		args     string
		works    bool
		expected []string
	}{
		{"status", true, []string{"nothing runs"}},
		{"up --keeper=local --replicas=2", true, []string{"plugin-2", "ready in", "kubectl create secret", "--context=node-2"}},
		{"up --keeper=local", false, []string{"one runs already"}},
		{"status", true, []string{"kube-apiserver-2  runs", "kube-apiserver-2  /readyz/kms-providers: 200 ok"}},
		{"down", true, []string{"kube-apiserver-1  ended", "etcd              ended"}},
		{"down", true, []string{"nothing runs"}},
	} {
		cmd := exec.Command(program, append(strings.Fields(step.args), "--dir="+dir)...)
		out, err := cmd.CombinedOutput()
		if (err == nil) != step.works {
			t.Fatalf("%s: %v: %s", step.args, err, out)
		}
		for _, expected := range step.expected {
			if !strings.Contains(string(out), expected) {
				t.Errorf("%s does not print %q: %s", step.args, expected, out)
			}
		}
	}
}
