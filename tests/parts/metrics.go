package parts

import (
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
)

// Metrics is a page of metrics in Prometheus form.
type Metrics string

// Scrape reads a page of metrics.
func Scrape(url string) (Metrics, error) {
	response, err := http.Get(url)
	if err != nil {
		return "", err
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil || response.StatusCode != http.StatusOK {
		return "", fmt.Errorf("%s: %s %w", url, response.Status, err)
	}
	return Metrics(text), nil
}

// Sum returns the sum of a metric over its series with all of these labels, and whether there is any.
func (m Metrics) Sum(metric string, labels ...string) (sum float64, found bool) {
	for line := range strings.Lines(string(m)) {
		series, value, _ := strings.Cut(strings.TrimSpace(line), " ")
		name, set, _ := strings.Cut(series, "{")
		if name != metric ||
			slices.ContainsFunc(labels, func(label string) bool { return !strings.Contains(set, label) }) {
			continue
		}
		if count, err := strconv.ParseFloat(value, 64); err == nil {
			sum, found = sum+count, true
		}
	}
	return sum, found
}
