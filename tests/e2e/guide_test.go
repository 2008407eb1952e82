package e2e_test

import (
	"strings"
	"testing"

	"vault-kube-kms.test/cluster"
	"vault-kube-kms.test/parts"
)

// What `cargo xtask cluster up` tells one to try works as it is told.
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

// A cluster is ended by what is written down of it, and nothing else is.
func TestAClusterIsEndedByThoseWhoComeLater(t *testing.T) {
	t.Parallel()
	c := start(t, func(s *cluster.Settings) { s.Keeper = cluster.Local })
	bystander := start(t, func(s *cluster.Settings) { s.Keeper = cluster.Local })
	state, err := cluster.Load(c.Dir)
	must(t, err)
	if !state.Alive() || len(state.Processes) != 3 {
		t.Errorf("it is written down that %v run", state.Processes)
	}
	must(t, cluster.End(c.Dir, func(text string) { t.Log(text) }))
	for _, process := range []*parts.Process{c.plugin.Process, c.api.Process, c.Etcd.Process} {
		if !process.EndsWithin(parts.StopBound) {
			t.Errorf("process %d lives on", process.Pid())
		}
	}
	if !bystander.plugin.Alive() || !bystander.api.Alive() {
		t.Error("another one was ended")
	}
	// It can be done twice.
	must(t, cluster.End(c.Dir, func(text string) { t.Log(text) }))
}
