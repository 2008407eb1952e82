// Package monitoring_test watches real providers with a real Prometheus and the files of deploy/monitoring. It
// makes each alert fire.
package monitoring_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"sort"
	"strings"
	"testing"
	"time"

	"vault-kube-kms.test/parts"
	"vault-kube-kms.test/suite"
)

// fireBound limits the time until an alert fires. An endpoint is stale after a minute, and a proof is old after
// 90 s.
const fireBound = 3 * time.Minute

var shared = suite.Shared[*parts.OpenBao]{Start: parts.StartDevOpenBao}

func TestMain(m *testing.M) { suite.Main(m, 1, shared.End) }

// provider is a running provider, under the job that its scrape has.
type provider struct {
	*parts.Process
	job, address, socket string
}

// start starts a provider. through is a shell line that starts it, in which "$0" "$@" is the provider.
func start(t *testing.T, job string, flags []string, through ...string) provider {
	t.Helper()
	port := parts.FreePort()
	socket := filepath.Join(suite.ShortDir(t), "kms.sock")
	args := append(through, suite.Needed(t, "PROVIDER"), "--health-port=0", fmt.Sprintf("--metrics-port=%d", port),
		"--listen-address=unix://"+socket, "--audit-log="+filepath.Join(suite.ShortDir(t), "audit.log"))
	process, err := parts.Way{}.Start(job, append(args, flags...))
	suite.Must(t, err)
	t.Cleanup(func() { process.Stop() })
	p := provider{process, job, fmt.Sprintf("127.0.0.1:%d", port), socket}
	if !parts.Eventually(parts.StartBound, func() bool { return strings.Contains(p.metrics(), "vault_kube_kms_healthy 1") }) {
		t.Fatalf("%s was never healthy: %s", job, parts.Tail(process.Printed()))
	}
	return p
}

// metrics returns its page of metrics, or an empty text while it does not answer.
func (p provider) metrics() string {
	response, err := http.Get("http://" + p.address + "/metrics")
	if err != nil {
		return ""
	}
	defer response.Body.Close()
	text, _ := io.ReadAll(response.Body)
	return string(text)
}

func tenant(t *testing.T, bao *parts.OpenBao) *parts.Tenant {
	t.Helper()
	made, err := bao.NewTenant(parts.RandomName(), suite.ShortDir(t), 3600, parts.UseOfKey...)
	suite.Must(t, err)
	suite.Must(t, made.MakeKey())
	return made
}

// shortened returns rules.yaml with shorter times and no other change: each `for` is a second, a proof is old
// after 90 s (a healthy provider makes one every 50 s), and increase() covers one minute.
func shortened(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile("../../deploy/monitoring/rules.yaml")
	suite.Must(t, err)
	rules := regexp.MustCompile(`for: \w+`).ReplaceAllString(string(text), "for: 1s")
	rules = strings.Replace(rules, "_seconds > 300", "_seconds > 90", 1)
	return strings.Replace(rules, "[10m]", "[1m]", 1)
}

// prometheus starts the real one: deploy/monitoring/scrape.yaml, with these providers as targets.
func prometheus(t *testing.T, jobs map[string][]string) (url string) {
	t.Helper()
	dir := suite.ShortDir(t)
	text, err := os.ReadFile("../../deploy/monitoring/scrape.yaml")
	suite.Must(t, err)
	config := strings.ReplaceAll(string(text), "interval: 15s", "interval: 1s")
	head, _, found := strings.Cut(config, "  - job_name:")
	if !found {
		t.Fatal("scrape.yaml has no job")
	}
	for job, targets := range jobs {
		head += fmt.Sprintf("  - {job_name: %s, static_configs: [{targets: [%q]}]}\n", job, strings.Join(targets, `", "`))
	}
	config = strings.ReplaceAll(head, `\"`, `"`)
	suite.Must(t, os.WriteFile(filepath.Join(dir, "prometheus.yaml"), []byte(config), 0o600))
	suite.Must(t, os.WriteFile(filepath.Join(dir, "rules.yaml"), []byte(shortened(t)), 0o600))
	address := parts.FreeAddress()
	process, err := parts.Way{}.Start("prometheus", []string{
		suite.Needed(t, "PROMETHEUS"), "--config.file=" + filepath.Join(dir, "prometheus.yaml"),
		"--storage.tsdb.path=" + filepath.Join(dir, "data"), "--web.listen-address=" + address, "--log.level=error",
	})
	suite.Must(t, err)
	t.Cleanup(func() { process.Stop() })
	url = "http://" + address
	suite.Must(t, process.Until(func() error {
		response, err := http.Get(url + "/-/ready")
		if err == nil && response.StatusCode != http.StatusOK {
			err = fmt.Errorf("ready: %s", response.Status)
		}
		return err
	}))
	return url
}

// firing returns the alerts that fire, each as its name and its job.
func firing(t *testing.T, url string) []string {
	t.Helper()
	response, err := http.Get(url + "/api/v1/alerts")
	suite.Must(t, err)
	defer response.Body.Close()
	var answer struct {
		Data struct {
			Alerts []struct {
				State  string
				Labels map[string]string
			}
		}
	}
	suite.Must(t, json.NewDecoder(response.Body).Decode(&answer))
	var names []string
	for _, alert := range answer.Data.Alerts {
		if alert.State == "firing" {
			names = append(names, alert.Labels["alertname"]+" "+alert.Labels["job"])
		}
	}
	sort.Strings(names)
	return slices.Compact(names)
}

// TestEachAlertFires expects that each alert fires for its cause, and that no alert fires for a healthy provider.
func TestEachAlertFires(t *testing.T) {
	bao := shared.Use(t)
	own, err := parts.StartDevOpenBao(parts.Way{}, suite.Needed(t, "BAO"), suite.ShortDir(t))
	suite.Must(t, err)
	t.Cleanup(own.Kill)
	var providers []provider
	run := func(job string, flags []string, through ...string) provider {
		p := start(t, job, flags, through...)
		providers = append(providers, p)
		return p
	}
	grace := "--outage-grace=1s"

	// One provider stays healthy. The others get a fault later.
	storm(t, run("healthy", tenant(t, bao).Flags()))
	down := run("vault-kube-kms", tenant(t, bao).Flags())
	run("outage", append(tenant(t, own).Flags(), grace))
	revoked := tenant(t, bao)
	run("revoked", append(revoked.Flags(), grace))
	denied := tenant(t, bao)
	run("denied", append(denied.Flags(), grace))
	deleted := tenant(t, bao)
	run("deleted", append(deleted.Flags(), grace))
	rotated := tenant(t, bao)
	run("rotated", append(rotated.Flags(), "--rotation-delay=24h"))
	two := tenant(t, bao)
	run("ids", two.Flags())
	run("ids", append(two.Flags(), "--key-lineage=another"))
	run("endpoint", tenant(t, bao).FlagsVia(bao.Address, parts.FreeAddress()))

	// One certificate expires in 5 days, and one server stays behind in key versions.
	front := suite.Front{Days: 5}.Serve(t, bao)
	run("certificate", viaFront(tenant(t, bao), front, front.Address))
	lagging := tenant(t, bao)
	stale := suite.Front{Days: 365, See: hideVersion2}.Serve(t, bao)
	ahead := suite.Front{Days: 365}.Serve(t, bao)
	run("stale", append(viaFront(lagging, stale, ahead.Address, stale.Address), "--tls-skip-verify"))

	// The token in this file expires, and no agent replaces it.
	expiring := tenant(t, bao)
	file := filepath.Join(suite.ShortDir(t), "token")
	token, err := bao.NewToken(map[string]any{"policies": []string{expiring.Key}, "ttl": 30})
	suite.Must(t, err)
	suite.Must(t, os.WriteFile(file, []byte(token), 0o600))
	run("expired", append(expiring.Flags(), "--auth-method=token-file", "--token-file="+file, grace))

	// The log of this provider is not read.
	stalled := filepath.Join(suite.ShortDir(t), "stdout")
	suite.Must(t, mkfifo(t, stalled))
	unread := run("unread", append(suite.LocalFlags(t), "--zap-log-level=trace"), "sh", "-c",
		fmt.Sprintf(`exec "$0" "$@" 3<>%s >%s`, stalled, stalled))

	jobs := map[string][]string{}
	for _, p := range providers {
		jobs[p.job] = append(jobs[p.job], p.address)
	}
	url := prometheus(t, jobs)
	wanted := map[string]func(){
		"VaultKubeKmsDown vault-kube-kms":                down.Kill,
		"VaultKubeKmsKeeperUnreachable outage":           own.Kill,
		"VaultKubeKmsUnhealthy outage":                   nil,
		"VaultKubeKmsProofStale outage":                  nil,
		"VaultKubeKmsTokenRefused revoked":               func() { refuse(t, revoked) },
		"VaultKubeKmsPermissionDenied denied":            func() { suite.Must(t, denied.Forbid()) },
		"VaultKubeKmsKeyIncident deleted":                func() { remove(t, deleted) },
		"VaultKubeKmsRotationStuck rotated":              func() { suite.Must(t, rotated.Rotate()) },
		"VaultKubeKmsKeyIdsDiffer ids":                   nil,
		"VaultKubeKmsEndpointLeftAlone endpoint":         nil,
		"VaultKubeKmsEndpointStale stale":                func() { suite.Must(t, lagging.Rotate()) },
		"VaultKubeKmsCertificateExpiresSoon certificate": nil,
		"VaultKubeKmsCredentialExpired expired":          nil,
		"VaultKubeKmsLogLinesDropped unread":             func() { fill(t, unread) },
	}
	requireEveryAlert(t, wanted)
	for _, provoke := range wanted {
		if provoke != nil {
			provoke()
		}
	}
	began, fired := time.Now(), map[string]time.Duration{}
	parts.EventuallyEvery(500*time.Millisecond, fireBound, func() bool {
		for _, name := range firing(t, url) {
			if _, known := fired[name]; !known {
				fired[name] = time.Since(began)
			}
		}
		for name := range wanted {
			if _, known := fired[name]; !known {
				return false
			}
		}
		return true
	})
	for name := range wanted {
		after, known := fired[name]
		if !known {
			t.Errorf("%s does not fire", name)
			continue
		}
		t.Logf("%-50s fired after %4.1f s", name, after.Seconds())
	}
	for name := range fired {
		if strings.HasSuffix(name, " healthy") {
			t.Errorf("%s fires", name)
		}
	}
	requireDocumented(t, providers)
}

// requireEveryAlert requires that the test covers each alert of rules.yaml.
func requireEveryAlert(t *testing.T, wanted map[string]func()) {
	t.Helper()
	for _, found := range regexp.MustCompile(`(?m)- alert: (\w+)$`).FindAllStringSubmatch(shortened(t), -1) {
		provoked := func(name string) bool { return strings.HasPrefix(name, found[1]+" ") }
		if !slices.ContainsFunc(keys(wanted), provoked) {
			t.Errorf("the test does not cover %s", found[1])
		}
	}
}

func keys[T any](of map[string]T) (names []string) {
	for name := range of {
		names = append(names, name)
	}
	return names
}
