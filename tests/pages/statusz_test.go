// Package pages_test opens /statusz in Chromium, as a person does.
package pages_test

import (
	"fmt"
	"io"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"vault-kube-kms.test/parts"
	"vault-kube-kms.test/suite"
)

// changeBound limits the time until the provider shows a change.
const changeBound = 30 * time.Second

var shared = suite.Shared[*parts.OpenBao]{Start: parts.StartDevOpenBao}

func TestMain(m *testing.M) { suite.Main(m, 1, shared.End) }

// read returns the text of the page, or an empty text while it does not answer.
func read(url string) string {
	response, err := http.Get(url)
	if err != nil {
		return ""
	}
	defer response.Body.Close()
	text, _ := io.ReadAll(response.Body)
	return string(text)
}

// TestStatuszAsAPersonSeesIt expects the colour of the state, the next event in minutes, and a link to the
// document.
func TestStatuszAsAPersonSeesIt(t *testing.T) {
	tenant, err := shared.Use(t).NewTenant(parts.RandomName(), suite.ShortDir(t), 3600, parts.UseOfKey...)
	suite.Must(t, err)
	suite.Must(t, tenant.MakeKey())
	port := parts.FreePort()
	endpoint := "unix://" + filepath.Join(suite.ShortDir(t), "kms.sock")
	flags := append(tenant.Flags(), fmt.Sprintf("--metrics-port=%d", port), "--health-port=0",
		"--rotation-delay=59m59s", "--outage-grace=1s")
	process, err := parts.Way{}.Start("plugin", append([]string{
		suite.Needed(t, "PROVIDER"), "--listen-address=" + endpoint}, flags...))
	suite.Must(t, err)
	t.Cleanup(func() { process.Stop() })
	b := suite.Page{T: t, URL: fmt.Sprintf("http://127.0.0.1:%d/statusz", port)}
	shows := func(text string) {
		t.Helper()
		if !parts.Eventually(parts.Stretched(changeBound), func() bool { return strings.Contains(read(b.URL), text) }) {
			t.Fatalf("the page does not show %q:\n%s", text, read(b.URL))
		}
		if page := b.Text(); !strings.Contains(page, text) {
			t.Errorf("Chromium does not show %q:\n%s", text, page)
		}
	}

	shows("no change is due.")
	if !suite.HasColour(b.Screen("healthy"), 0x00, 0x66, 0x00) {
		t.Error("a healthy provider is not shown in green")
	}
	suite.Must(t, tenant.Rotate())
	shows("version 2 writes in 59 min, on all nodes at the same instant.")
	if !suite.HasColour(b.Screen("rotated"), 0x88, 0x55, 0x00) {
		t.Error("a version that waits is not shown in amber")
	}
	suite.Must(t, tenant.Forbid())
	shows("docs/failure-modes.md#permission-denied")
	if !suite.HasColour(b.Screen("denied"), 0xaa, 0x00, 0x00) {
		t.Error("a provider that fails is not shown in red")
	}
}
