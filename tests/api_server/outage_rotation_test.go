package apiserver_test

import (
	"strings"
	"testing"
	"time"

	"k8s.io/kms/pkg/service"

	"vault-kube-kms.test/parts"
)

// TestChecklist64_EncryptFailsRightAfterARotation stops the keeper just before a new version takes over. It
// expects that Status stays true, and that the API server writes with its old seed until the plugin can wrap a
// new one.
func TestChecklist64_EncryptFailsRightAfterARotation(t *testing.T) {
	t.Parallel()
	tenant := sharedBao(t).tenant(t)
	via := newForwarder(t, tenant.bao.Address)
	via.start(t)
	p, metrics := metered(t, with(delayed(tenant.FlagsVia(via.address), delay), "--outage-grace=10m"))
	client := p.client(t)
	provider, secret := parts.RandomName(), []byte("a Secret")
	server := newAPIServer(t, provider, "api-server", p)
	before := server.mustWrite(t, secret)
	id := keyID(t, client)

	tenant.rotate(t)
	writes := keeperWrites(t, metrics)
	if !parts.Eventually(pollBound, func() bool {
		waiting, _ := counted(t, metrics, "vault_kube_kms_next_version_seconds")
		// A wrap, an unwrap, and an unwrap that must fail.
		return waiting > 0 && keeperWrites(t, metrics) >= writes+3
	}) {
		t.Fatal("the new version was not seen")
	}
	via.stop()
	var told string
	if !parts.Eventually(delay, func() bool {
		told = keyID(t, client)
		return told != id
	}) || !strings.HasPrefix(told, "v2.") {
		t.Fatalf("after %s Status tells %s", id, told)
	}
	if _, err := client.Encrypt(t.Context(), "away", randomBytes(32)); !strings.HasPrefix(message(err), "keeper-unreachable: ") {
		t.Errorf("Encrypt without the keeper: %v", err)
	}
	var err error
	if !parts.Eventually(25*time.Second, func() bool {
		err = server.check()
		return err != nil
	}) || !strings.Contains(err.Error(), "failed to rotate DEK") {
		t.Fatalf("the API server does not notice: %v", err)
	}
	// Status stays ok, because the outage is younger than the grace time.
	var answer *service.StatusResponse
	if answer, err = client.Status(t.Context()); err != nil || answer.KeyID != told {
		t.Errorf("Status: %v, %v", answer, err)
	}
	during := server.mustWrite(t, secret)
	if under := storedUnder(t, provider, during); under != id {
		t.Errorf("written under %s", under)
	}

	via.start(t)
	if !parts.Eventually(10*time.Second, func() bool {
		err = server.check()
		return err == nil
	}) {
		t.Fatalf("the API server does not recover: %v", err)
	}
	after := server.mustWrite(t, secret)
	if under := storedUnder(t, provider, after); under != told {
		t.Errorf("written under %s", under)
	}
	server.requireReads(t, before, secret, true)
	server.requireReads(t, during, secret, true)
	server.requireReads(t, after, secret, false)
}
