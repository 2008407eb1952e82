package monitoring_test

import (
	"maps"
	"os"
	"regexp"
	"strings"
	"testing"

	"vault-kube-kms.test/suite"
)

// requireDocumented requires that docs/metrics.md names exactly the metrics that providers show, and that rules
// and dashboard use only these.
func requireDocumented(t *testing.T, providers []provider) {
	t.Helper()
	shown := map[string]bool{}
	for _, p := range providers {
		for _, found := range regexp.MustCompile(`(?m)^# TYPE (\S+)`).FindAllStringSubmatch(p.metrics(), -1) {
			shown[found[1]] = true
		}
	}
	text, err := os.ReadFile("../../docs/metrics.md")
	suite.Must(t, err)
	documented := map[string]bool{}
	for _, found := range regexp.MustCompile("(?m)^\\| `(\\w+)").FindAllStringSubmatch(string(text), -1) {
		documented[found[1]] = true
	}
	for name := range shown {
		if !documented[name] {
			t.Errorf("docs/metrics.md does not name %s", name)
		}
	}
	for name := range documented {
		if !shown[name] {
			t.Errorf("docs/metrics.md names %s, which no provider shows", name)
		}
	}
	all := maps.Clone(shown)
	for name := range shown {
		for _, suffix := range []string{"_bucket", "_sum", "_count"} {
			all[name+suffix] = true
		}
	}
	for _, file := range []string{"rules.yaml", "dashboard.json"} {
		text, err := os.ReadFile("../../deploy/monitoring/" + file)
		suite.Must(t, err)
		for _, name := range regexp.MustCompile(`\b(vault_kube_kms|vso_client|rpc_server|process)_\w+`).FindAllString(string(text), -1) {
			if !all[strings.TrimSuffix(name, "_")] {
				t.Errorf("%s uses %s, which no provider shows", file, name)
			}
		}
	}
}
