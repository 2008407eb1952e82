package apiserver_test

import (
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// metered starts a healthy plugin that shows its metrics, and returns where.
func metered(t *testing.T, flags []string) (*plugin, string) {
	t.Helper()
	port := freePort()
	p := start(t, append(flags, fmt.Sprintf("--metrics-port=%d", port)))
	return p, fmt.Sprintf("http://127.0.0.1:%d/metrics", port)
}

func scrape(t *testing.T, url string) string {
	t.Helper()
	response, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil || response.StatusCode != http.StatusOK {
		t.Fatalf("%s: %s, %v", url, response.Status, err)
	}
	return string(text)
}

// counted is the sum of a metric over its label sets that hold all of the labels, and whether
// there is any.
func counted(t *testing.T, url, metric string, labels ...string) (sum float64, found bool) {
	t.Helper()
	for line := range strings.Lines(scrape(t, url)) {
		series, value, _ := strings.Cut(strings.TrimSpace(line), " ")
		name, set, _ := strings.Cut(series, "{")
		if name != metric ||
			slices.ContainsFunc(labels, func(label string) bool { return !strings.Contains(set, label) }) {
			continue
		}
		count, err := strconv.ParseFloat(value, 64)
		if err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		sum, found = sum+count, true
	}
	return sum, found
}

// keeperCalls is how often the keeper was asked, with success or without.
func keeperCalls(t *testing.T, url string, labels ...string) int {
	t.Helper()
	worked, found := counted(t, url, "vso_client_operations_total", labels...)
	failed, _ := counted(t, url, "vso_client_operations_errors_total", labels...)
	if !found {
		t.Fatalf("the metrics do not count the keeper's calls %q", labels)
	}
	return int(worked + failed)
}

// keeperWrites is how often the keeper was asked to wrap or to unwrap.
func keeperWrites(t *testing.T, url string) int {
	t.Helper()
	return keeperCalls(t, url, `operation="write"`)
}

// keeperReads is how often the keeper was asked for the key's metadata.
func keeperReads(t *testing.T, url string) int {
	t.Helper()
	return keeperCalls(t, url, `operation="read"`)
}

// requireNoIncident fails if the plugin ever thought that its key was replaced or rolled back.
func requireNoIncident(t *testing.T, url string) {
	t.Helper()
	if count, _ := counted(t, url, "vault_kube_kms_incidents_total"); count != 0 {
		t.Errorf("%v incidents", count)
	}
}
