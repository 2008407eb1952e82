package apiserver_test

import (
	"fmt"
	"testing"

	"vault-kube-kms.test/parts"
)

// metered starts a healthy plugin with a metrics port, and returns the address of its metrics.
func metered(t *testing.T, flags []string) (*plugin, string) {
	t.Helper()
	port := parts.FreePort()
	p := start(t, append(flags, fmt.Sprintf("--metrics-port=%d", port)))
	return p, fmt.Sprintf("http://127.0.0.1:%d/metrics", port)
}

func scrape(t *testing.T, url string) parts.Metrics {
	t.Helper()
	metrics, err := parts.Scrape(url)
	must(t, err)
	return metrics
}

// counted returns the sum of a metric over its series with all of these labels, and whether there is any.
func counted(t *testing.T, url, metric string, labels ...string) (sum float64, found bool) {
	t.Helper()
	return scrape(t, url).Sum(metric, labels...)
}

// keeperCalls returns the number of requests to the keeper, with or without success.
func keeperCalls(t *testing.T, url string, labels ...string) int {
	t.Helper()
	worked, found := counted(t, url, "vso_client_operations_total", labels...)
	failed, _ := counted(t, url, "vso_client_operations_errors_total", labels...)
	if !found {
		t.Fatalf("the metrics do not count the keeper's calls %q", labels)
	}
	return int(worked + failed)
}

// keeperWrites returns the number of wraps and unwraps at the keeper.
func keeperWrites(t *testing.T, url string) int {
	t.Helper()
	return keeperCalls(t, url, `operation="write"`)
}

// keeperReads returns the number of reads of the key's metadata.
func keeperReads(t *testing.T, url string) int {
	t.Helper()
	return keeperCalls(t, url, `operation="read"`)
}

// requireNoIncident requires that the plugin never reported a replaced or rolled-back key.
func requireNoIncident(t *testing.T, url string) {
	t.Helper()
	if count, _ := counted(t, url, "vault_kube_kms_incidents_total"); count != 0 {
		t.Errorf("%v incidents", count)
	}
}

// TestCountersExistFromTheStart expects that counters for alerts are 0 from the start, even if the keeper was
// never reached. An increase() over a series that begins with 1 never fires.
func TestCountersExistFromTheStart(t *testing.T) {
	t.Parallel()
	port := parts.FreePort()
	flags := append(sharedBao(t).tenant(t).FlagsVia(parts.FreeAddress()), fmt.Sprintf("--metrics-port=%d", port))
	launch(t, newEndpoint(t), flags)
	url := fmt.Sprintf("http://127.0.0.1:%d/metrics", port)
	if !parts.Eventually(startBound, func() bool { _, err := parts.Scrape(url); return err == nil }) {
		t.Fatal("no metrics")
	}
	for _, series := range [][]string{
		{"incidents_total", `reason="key-replaced"`},
		{"incidents_total", `reason="key-rolled-back"`},
		{"session_failures_total", `code="login-refused"`},
		{"session_failures_total", `code="wrapping-token-used"`},
		{"session_failures_total", `code="credential-unreadable"`},
		{"retries_total", `reason="quota"`},
		{"legacy_reads_total"},
		{"peers_denied_total"},
		{"authority_rewritten_total"},
		{"log_lines_dropped_total"},
	} {
		if count, found := counted(t, url, "vault_kube_kms_"+series[0], series[1:]...); !found || count != 0 {
			t.Errorf("%v is %v, found: %v", series, count, found)
		}
	}
}
