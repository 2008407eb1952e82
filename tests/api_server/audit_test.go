package apiserver_test

import (
	"bufio"
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"k8s.io/kms/pkg/service"

	"vault-kube-kms.test/parts"
)

// entry is a line of the audit log.
type entry struct {
	Audit, UID, Outcome, Time string
	KeyID                     string `json:"key_id"`
	PeerUID                   *int   `json:"peer_uid"`
	PeerGID                   *int   `json:"peer_gid"`
	PeerPID                   *int   `json:"peer_pid"`
	RequestID                 string `json:"keeper_request_id"`
}

// waitEntries waits until the file has this number of lines, and returns them.
func waitEntries(t *testing.T, file string, count int) (entries []entry) {
	t.Helper()
	written := parts.Eventually(startBound, func() bool {
		text, err := os.ReadFile(file)
		if err != nil {
			return false
		}
		entries = nil
		for lines := bufio.NewScanner(bytes.NewReader(text)); lines.Scan(); {
			var one entry
			if json.Unmarshal(lines.Bytes(), &one) != nil {
				return false
			}
			entries = append(entries, one)
		}
		return len(entries) >= count
	})
	if !written {
		t.Fatalf("the audit log has %d entries of %d", len(entries), count)
	}
	return entries
}

// TestEachCallIsAnEntryOfTheAuditLog expects one line for each wrap and unwrap. The line names the caller, the
// key and the keeper's request, and has no data.
func TestEachCallIsAnEntryOfTheAuditLog(t *testing.T) {
	t.Parallel()
	file := filepath.Join(shortDir(t), "audit.log")
	p := start(t, with(sharedBao(t).tenant(t).Flags(), "--audit-log="+file, "--audit-on-loss=refuse"))
	client := p.client(t)
	seed := randomBytes(32)
	sealed, err := client.Encrypt(t.Context(), "uid-1", seed)
	must(t, err)
	request := &service.DecryptRequest{Ciphertext: sealed.Ciphertext, KeyID: sealed.KeyID, Annotations: sealed.Annotations}
	_, err = client.Decrypt(t.Context(), "uid-2", request)
	must(t, err)
	request.KeyID = "v7.unknown"
	if _, err = client.Decrypt(t.Context(), "uid-3", request); err == nil {
		t.Fatal("an unknown key id was decrypted")
	}
	entries := waitEntries(t, file, 3)
	for index, want := range []entry{
		{Audit: "Encrypt", UID: "uid-1", KeyID: sealed.KeyID, Outcome: "ok"},
		{Audit: "Decrypt", UID: "uid-2", KeyID: sealed.KeyID, Outcome: "ok"},
		{Audit: "Decrypt", UID: "uid-3", KeyID: "v7.unknown", Outcome: "key-id-unknown"},
	} {
		got := entries[index]
		if got.Audit != want.Audit || got.UID != want.UID || got.KeyID != want.KeyID || got.Outcome != want.Outcome {
			t.Errorf("entry %d is %+v", index, got)
		}
		if got.PeerPID == nil || *got.PeerPID != os.Getpid() || got.PeerUID == nil || *got.PeerUID != os.Getuid() {
			t.Errorf("entry %d names another caller: %+v", index, got)
		}
		if (len(got.RequestID) == 36) != (want.Outcome == "ok") {
			t.Errorf("entry %d has the keeper's request %q", index, got.RequestID)
		}
	}
	text, err := os.ReadFile(file)
	must(t, err)
	if bytes.Contains(text, seed) || bytes.Contains(text, sealed.Ciphertext) {
		t.Error("the audit log holds data")
	}
}

// TestCallsAreRefusedWhileTheAuditLogFails expects that calls fail while entries cannot be written, with
// --audit-on-loss=refuse, and that they succeed again by themselves.
func TestCallsAreRefusedWhileTheAuditLogFails(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(shortDir(t), "log")
	must(t, os.Mkdir(dir, 0o700))
	file := filepath.Join(dir, "audit.log")
	p := start(t, with(localFlags(t), "--audit-log="+file, "--audit-on-loss=refuse"))
	client := p.client(t)
	_, err := client.Encrypt(t.Context(), "before", randomBytes(32))
	must(t, err)
	waitEntries(t, file, 1)
	must(t, os.Rename(dir, dir+".away"))
	refused := parts.Eventually(startBound, func() bool {
		_, err := client.Encrypt(t.Context(), "meanwhile", randomBytes(32))
		return err != nil && strings.HasPrefix(message(err), "audit-log-failing: ")
	})
	if !refused {
		t.Error("calls go on without their entries")
	}
	must(t, os.Rename(dir+".away", dir))
	healed := parts.Eventually(startBound, func() bool {
		_, err := client.Encrypt(t.Context(), "after", randomBytes(32))
		return err == nil
	})
	if !healed {
		t.Error("calls are still refused although entries can be written")
	}
}

// TestTheAuditLogOnStandardOutput expects one line on standard output for each call, beside the lines of the log.
func TestTheAuditLogOnStandardOutput(t *testing.T) {
	t.Parallel()
	p := start(t, with(localFlags(t), "--audit-log=stdout"))
	_, err := p.client(t).Encrypt(t.Context(), "uid-1", randomBytes(32))
	must(t, err)
	if !parts.Eventually(startBound, func() bool { return strings.Contains(p.Printed(), `{"audit":"Encrypt"`) }) {
		t.Errorf("no entry on standard output: %s", p.Printed())
	}
}

// TestLostAuditEntriesAreCounted expects that calls go on while entries cannot be written, and that the lost ones are
// counted.
func TestLostAuditEntriesAreCounted(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(shortDir(t), "log")
	must(t, os.Mkdir(dir, 0o700))
	p, url := metered(t, with(localFlags(t), "--audit-log="+filepath.Join(dir, "audit.log")))
	client := p.client(t)
	_, err := client.Encrypt(t.Context(), "before", randomBytes(32))
	must(t, err)
	waitEntries(t, filepath.Join(dir, "audit.log"), 1)
	must(t, os.Rename(dir, dir+".away"))
	counted := parts.Eventually(startBound, func() bool {
		_, err := client.Encrypt(t.Context(), "meanwhile", randomBytes(32))
		must(t, err)
		lost, _ := counted(t, url, "vault_kube_kms_audit_entries_lost_total")
		return lost > 0
	})
	if !counted {
		t.Error("no lost entry is counted")
	}
}
