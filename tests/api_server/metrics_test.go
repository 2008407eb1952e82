package apiserver_test

import (
	"fmt"
	"io"
	"net/http"
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

// keeperWrites is how often the keeper was asked to wrap or to unwrap, with success or without.
func keeperWrites(t *testing.T, url string) int {
	t.Helper()
	sum, seen := 0, false
	for line := range strings.Lines(scrape(t, url)) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), " ")
		if !strings.HasPrefix(name, "vso_client_operations_total{") &&
			!strings.HasPrefix(name, "vso_client_operations_errors_total{") ||
			!strings.Contains(name, `operation="write"`) {
			continue
		}
		count, err := strconv.Atoi(value)
		if err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		sum, seen = sum+count, true
	}
	if !seen {
		t.Fatal("the metrics do not count the keeper's writes")
	}
	return sum
}
