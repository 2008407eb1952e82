package apiserver_test

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"k8s.io/kms/pkg/service"

	"vault-kube-kms.test/parts"
)

// TestChecklist58_TheKeyIDNeverGoesBack makes a lagging replica answer with version 1 after the plugin has seen
// version 2.
func TestChecklist58_TheKeyIDNeverGoesBack(t *testing.T) {
	t.Parallel()
	tenant := sharedBao(t).tenant(t)
	via := newLaggard(t, tenant)
	start(t, via.flags(tenant)).Stop()
	first := via.remember(t)
	tenant.rotate(t)

	p, metrics := metered(t, delayed(via.flags(tenant), 0))
	client := p.client(t)
	id := keyID(t, client)
	if !strings.HasPrefix(id, "v2.") {
		t.Fatalf("it writes under %s", id)
	}
	all := []stored{store(t, client)}
	for range 3 {
		via.answer(first)
		before := via.replays()
		if !parts.Eventually(pollBound, func() bool {
			look(t, client)
			return via.replays() > before
		}) {
			t.Fatal("the plugin did not ask the replica that lags")
		}
		requireWritesUnder(t, client, id)
		via.answer(nil)
		reads := keeperReads(t, metrics)
		if !parts.Eventually(pollBound, func() bool {
			look(t, client)
			return keeperReads(t, metrics) > reads
		}) {
			t.Fatal("the plugin did not read the key again")
		}
		requireWritesUnder(t, client, id)
		all = append(all, store(t, client))
	}
	requireAllOpen(t, client, all...)
	requireNoIncident(t, metrics)
}

func requireWritesUnder(t *testing.T, client service.Service, id string) {
	t.Helper()
	if now, used := keyID(t, client), store(t, client).sealed.KeyID; now != id || used != id {
		t.Errorf("Status tells %s and Encrypt uses %s instead of %s", now, used, id)
	}
}

// TestAKeyThatWentBackIsAnIncident expects an incident if the older state lasts, because somebody has then
// restored an older key.
func TestAKeyThatWentBackIsAnIncident(t *testing.T) {
	t.Parallel()
	tenant := sharedBao(t).tenant(t)
	via := newLaggard(t, tenant)
	start(t, via.flags(tenant)).Stop()
	first := via.remember(t)
	tenant.rotate(t)

	p, metrics := metered(t, delayed(via.flags(tenant), 0))
	client := p.client(t)
	id := keyID(t, client)
	one := store(t, client)
	via.answer(first)
	if !parts.Eventually(pollBound, func() bool {
		look(t, client)
		return via.replays() > 0
	}) {
		t.Fatal("the plugin did not read the key")
	}
	since := time.Now()
	text := waitUnhealthy(t, client, 60*time.Second+pollBound)
	t.Logf("after %v: %s", time.Since(since), text)
	if !strings.HasPrefix(text, "key-rolled-back: ") || !strings.Contains(text, "from 2 back to 1") {
		t.Errorf("Status: %s", text)
	}
	if took := time.Since(since); took < 59*time.Second {
		t.Errorf("a replica may lag for longer than %v", took)
	}
	if _, err := client.Encrypt(t.Context(), "refused", randomBytes(32)); status.Code(err) != codes.FailedPrecondition {
		t.Errorf("Encrypt: %v", err)
	}
	// Reads go on with the versions that the key still has.
	requireAllOpen(t, client, one)
	if count, _ := counted(t, metrics, "vault_kube_kms_incidents_total", `reason="key-rolled-back"`); count != 1 {
		t.Errorf("%v incidents are counted", count)
	}
	// A restart accepts the older state. A read that needs the newer version says so.
	restarted := start(t, delayed(via.flags(tenant), 0)).client(t)
	if now := keyID(t, restarted); !strings.HasPrefix(now, "v1.") {
		t.Errorf("after a restart it writes under %s", now)
	}
	_, err := restarted.Decrypt(t.Context(), "lost", asStored(one.sealed))
	if status.Code(err) != codes.NotFound || !strings.Contains(message(err), "version 2") {
		t.Errorf("data of the lost version: %v", err)
	}
	// Without a restart the incident ends when the known key is back.
	via.answer(nil)
	p.waitHealthy(t)
	requireWritesUnder(t, client, id)
}

func TestAReplacedKeyThatComesBackEndsTheIncident(t *testing.T) {
	t.Parallel()
	tenant := sharedBao(t).tenant(t)
	via := newLaggard(t, tenant)
	p := start(t, via.flags(tenant))
	client := p.client(t)
	one := store(t, client)
	id := keyID(t, client)
	via.answer(bornEarlier(t, via.remember(t)))
	if !parts.Eventually(pollBound, func() bool {
		look(t, client)
		return via.replays() > 0
	}) {
		t.Fatal("the plugin did not read the key")
	}
	// The incident ends at once, and not at the next poll.
	if text := waitUnhealthy(t, client, time.Second); !strings.HasPrefix(text, "key-replaced: ") {
		t.Errorf("Status: %s", text)
	}
	requireAllOpen(t, client, one)
	via.answer(nil)
	p.waitHealthy(t)
	requireWritesUnder(t, client, id)
}

// bornEarlier returns the state of a key whose first version was made one second earlier.
func bornEarlier(t *testing.T, state []byte) []byte {
	t.Helper()
	var answer map[string]any
	if err := json.Unmarshal(state, &answer); err != nil {
		t.Fatal(err)
	}
	versions := answer["data"].(map[string]any)["keys"].(map[string]any)
	versions["1"] = versions["1"].(float64) - 1
	changed, err := json.Marshal(answer)
	if err != nil {
		t.Fatal(err)
	}
	return changed
}

func TestChecklist63_AKeyThatWasReplacedIsAnIncident(t *testing.T) {
	t.Parallel()
	tenant := sharedBao(t).tenant(t)
	p, metrics := metered(t, tenant.Flags())
	client := p.client(t)
	old := store(t, client)
	tenant.replaceKey(t)

	text := waitUnhealthy(t, client, pollBound)
	t.Log(text)
	if !strings.HasPrefix(text, "key-replaced: ") || !strings.Contains(text, "restart") {
		t.Errorf("Status: %s", text)
	}
	if _, err := client.Encrypt(t.Context(), "refused", randomBytes(32)); !strings.HasPrefix(message(err), "key-replaced: ") {
		t.Errorf("Encrypt: %v", err)
	}
	if count, _ := counted(t, metrics, "vault_kube_kms_incidents_total", `reason="key-replaced"`); count != 1 {
		t.Errorf("%v incidents are counted", count)
	}
	if !p.Alive() {
		t.Fatal("the plugin has ended")
	}
	p.Stop()

	// A restart accepts the new key.
	again := start(t, tenant.Flags())
	client = again.client(t)
	if id := keyID(t, client); id == old.sealed.KeyID {
		t.Errorf("%s names two keys", id)
	}
	roundTrip(t, client, randomBytes(32))
	_, err := client.Decrypt(t.Context(), "lost", asStored(old.sealed))
	t.Log(message(err))
	if status.Code(err) != codes.NotFound || !strings.HasPrefix(message(err), "key-id-unknown: ") {
		t.Errorf("data of the old key: %v", err)
	}
	requireOneLine(t, message(err))
	again.requireHealthy(t)
}

// replaceKey deletes the key and makes another one of the same name, in another second.
func (n *tenant) replaceKey(t *testing.T) {
	t.Helper()
	path := "transit/keys/" + n.Key
	born := func() any {
		return n.bao.must(t, "GET", path, nil)["keys"].(map[string]any)["1"]
	}
	before := born()
	if !parts.EventuallyEvery(300*time.Millisecond, startBound, func() bool {
		n.bao.must(t, "POST", path+"/config", map[string]any{"deletion_allowed": true})
		n.bao.must(t, "DELETE", path, nil)
		n.bao.must(t, "POST", path, map[string]any{"type": "aes256-gcm96"})
		return born() != before
	}) {
		t.Fatal("the new key is as old as the former one")
	}
}
