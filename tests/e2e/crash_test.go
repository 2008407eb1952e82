package e2e_test

import (
	"net/http"
	"testing"
	"time"
)

const kmsReady = "/readyz/kms-providers"

func TestChecklist50_ThePluginIsKilledUnderWrites(t *testing.T) {
	t.Parallel()
	c := start(t)
	writes := repeatedly(t, 4, 20*time.Millisecond, c.api.create)
	reads := repeatedly(t, 2, 20*time.Millisecond, func(string) error { _, err := c.api.list(); return err })
	for range 3 {
		c.plugin.Kill()
		// A supervisor takes some time. Until then, the API server cannot connect.
		c.api.waitFor(t, kmsReady, http.StatusInternalServerError, converges)
		must(t, c.plugin.Restart())
		back := time.Now()
		c.api.waitFor(t, kmsReady, http.StatusOK, 20*time.Second)
		t.Logf("the API server is ready %v after the plugin is back", time.Since(back).Round(time.Second/10))
	}
	writes.requireNoFailure(t)
	reads.requireNoFailure(t)
	c.onlyKeyID(t)
	if seeds := c.seeds(t); seeds != 1 {
		t.Errorf("there are %d seeds", seeds)
	}
}

func TestChecklist71_ThePluginIsDown(t *testing.T) {
	t.Parallel()
	c := start(t)
	c.api.mustCreate(t, "before")
	c.plugin.Stop()
	gone := time.Now()
	c.api.waitFor(t, kmsReady, http.StatusInternalServerError, converges)
	if status, text := c.api.answers("/livez"); status != http.StatusOK {
		t.Errorf("/livez is %d %s", status, text)
	}
	c.api.requireReads(t, "before")
	c.api.mustCreate(t, "meanwhile")
	// The API server writes for three minutes after the last good Status, which was at most one minute before the
	// plugin's end.
	writes := repeatedly(t, 1, 500*time.Millisecond, c.api.create)
	time.Sleep(time.Until(gone.Add(110 * time.Second)))
	writes.requireNoFailure(t)
	c.api.requireReads(t, "before", "meanwhile")
	must(t, c.plugin.Restart())
	// Its connection tries become rarer: at 113 s, then at 181 s.
	c.api.waitFor(t, kmsReady, http.StatusOK, 2*time.Minute)
	c.api.mustCreate(t, "after")
}
