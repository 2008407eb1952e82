package e2e_test

import (
	"net/http"
	"testing"
	"time"

	"vault-kube-kms.test/parts"
)

// serves is a path that an API server answers as soon as it serves. Without its Secrets, /readyz and /livez fail.
const serves = "/version"

// TestChecklist51_TheKeeperIsDownForAHundredSeconds stops the keeper for 100 s. It expects that the API server
// goes on writing with its seed.
func TestChecklist51_TheKeeperIsDownForAHundredSeconds(t *testing.T) {
	t.Parallel()
	c := start(t)
	c.api.mustCreate(t, "before")
	id := c.onlyKeyID(t)
	encrypts := c.calls(t, "Encrypt")
	writes := repeatedly(t, 2, 100*time.Millisecond, c.api.create)
	reads := repeatedly(t, 2, 100*time.Millisecond, func(string) error { _, err := c.api.read("before"); return err })
	c.Bao.Kill()
	time.Sleep(100 * time.Second)
	if status, text := c.api.answers(kmsReady); status != http.StatusInternalServerError {
		t.Errorf("the API server reports no fault: %d %s", status, text)
	}
	must(t, c.Bao.Restart())
	back := time.Now()
	c.api.waitFor(t, kmsReady, http.StatusOK, 30*time.Second)
	t.Logf("the API server is ready %v after the keeper is back", time.Since(back).Round(time.Second/10))
	writes.requireNoFailure(t)
	reads.requireNoFailure(t)
	if c.onlyKeyID(t) != id || c.calls(t, "Encrypt") != encrypts {
		t.Error("the outage led to another seed")
	}
}

// TestTheAPIServerRestartsWhileTheKeeperIsDown expects that a restarted API server serves resources that are not
// encrypted, and recovers by itself when the keeper is back.
func TestTheAPIServerRestartsWhileTheKeeperIsDown(t *testing.T) {
	t.Parallel()
	c := start(t)
	c.api.mustCreate(t, "one", "two")
	const configMaps = "/api/v1/namespaces/default/configmaps"
	must(t, c.api.ask("POST", configMaps, http.StatusCreated, map[string]any{
		"apiVersion": "v1", "kind": "ConfigMap", "metadata": map[string]any{"name": "clear"},
	}, nil))
	c.Bao.Kill()
	c.api.Kill()
	must(t, c.api.Launch())
	must(t, c.api.UntilOK(serves))
	must(t, c.api.UntilOK(configMaps+"/clear"))
	if _, err := c.api.read("one"); err == nil {
		t.Error("a Secret is read without the keeper")
	}
	// A plugin that was started without the keeper does not change this.
	c.plugin.Kill()
	must(t, c.plugin.Restart())
	if status, text := c.api.answers(kmsReady); status != http.StatusInternalServerError {
		t.Errorf("the API server is ready: %d %s", status, text)
	}
	must(t, c.Bao.Restart())
	back := time.Now()
	c.api.waitFor(t, kmsReady, http.StatusOK, time.Minute)
	t.Logf("the API server is ready %v after the keeper is back", time.Since(back).Round(time.Second/10))
	c.api.waitFor(t, "/readyz", http.StatusOK, time.Minute)
	c.api.requireReads(t, "one", "two")
	c.api.mustCreate(t, "three")
	// Now the API server restarts after the recovery.
	c.restartAPIServer(t)
	c.api.requireList(t, 3)
}

// TestChecklist52_TheKeeperIsDownForSixMinutes stops the keeper for six minutes. It expects that writes fail
// after the API server's seed has expired, that cached objects are read, and that all recovers by itself.
func TestChecklist52_TheKeeperIsDownForSixMinutes(t *testing.T) {
	long(t)
	t.Parallel()
	c := start(t)
	c.api.mustCreate(t, "before")
	id := c.onlyKeyID(t)
	reads := repeatedly(t, 1, time.Second, func(string) error { _, err := c.api.read("before"); return err })
	c.Bao.Kill()
	gone := time.Now()
	var refused error
	if !parts.EventuallyEvery(time.Second, 5*time.Minute, func() bool {
		refused = c.api.create(parts.RandomName())
		return refused != nil
	}) {
		t.Error("writes never fail")
	}
	since := time.Since(gone).Round(time.Second)
	t.Logf("writes fail after %v: %v", since, refused)
	if since < 2*time.Minute || since > 4*time.Minute {
		t.Errorf("writes begin to fail after %v", since)
	}
	time.Sleep(time.Until(gone.Add(6 * time.Minute)))
	reads.requireNoFailure(t)
	must(t, c.Bao.Restart())
	back := time.Now()
	c.api.waitFor(t, kmsReady, http.StatusOK, time.Minute)
	t.Logf("the API server is ready %v after the keeper is back", time.Since(back).Round(time.Second/10))
	c.api.mustCreate(t, "after")
	if c.onlyKeyID(t) != id {
		t.Error("the outage led to another key id")
	}
}
