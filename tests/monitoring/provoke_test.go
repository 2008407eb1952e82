package monitoring_test

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"k8s.io/apiserver/pkg/storage/value/encrypt/envelope/kmsv2"
	"k8s.io/kms/pkg/service"

	"vault-kube-kms.test/parts"
	"vault-kube-kms.test/suite"
)

// viaFront returns the flags of a provider that reaches its keeper through fronts.
func viaFront(n *parts.Tenant, trusted *suite.Served, addresses ...string) []string {
	return append(n.FlagsVia(addresses...), "--tls-ca-file="+trusted.CAFile)
}

// refuse revokes the tenant's tokens and makes its secret ID invalid.
func refuse(t *testing.T, n *parts.Tenant) {
	t.Helper()
	suite.Must(t, n.DeleteRole())
	_, err := n.RevokeTokens()
	suite.Must(t, err)
}

// remove deletes the tenant's key.
func remove(t *testing.T, n *parts.Tenant) {
	t.Helper()
	_, err := n.Bao.Ask("POST", n.Mount+"/keys/"+n.Key+"/config", map[string]any{"deletion_allowed": true})
	suite.Must(t, err)
	_, err = n.Bao.Ask("DELETE", n.Mount+"/keys/"+n.Key, nil)
	suite.Must(t, err)
}

// hideVersion2 makes a front show the key without its first rotation.
func hideVersion2(response *http.Response) error {
	if response.Request.Method != http.MethodGet || !strings.Contains(response.Request.URL.Path, "/keys/") {
		return nil
	}
	text, err := io.ReadAll(response.Body)
	if err != nil {
		return err
	}
	var answer map[string]any
	if json.Unmarshal(text, &answer) == nil {
		if data, is := answer["data"].(map[string]any); is && data["latest_version"] == 2.0 {
			data["latest_version"] = 1
			delete(data["keys"].(map[string]any), "2")
			text, _ = json.Marshal(answer)
		}
	}
	response.Body = io.NopCloser(bytes.NewReader(text))
	response.ContentLength = int64(len(text))
	response.Header.Del("Content-Length")
	return nil
}

func mkfifo(t *testing.T, path string) error {
	t.Helper()
	return unix.Mkfifo(path, 0o600)
}

// storm unwraps many seeds at once, so that some wait and go to the keeper in one batch.
func storm(t *testing.T, p provider) {
	t.Helper()
	client, err := kmsv2.NewGRPCService(t.Context(), "unix://"+p.socket, "monitoring", 10*time.Second)
	suite.Must(t, err)
	var group sync.WaitGroup
	for number := range 64 {
		group.Go(func() {
			sealed, err := client.Encrypt(t.Context(), "storm", append(make([]byte, 31), byte(number)))
			if err == nil {
				_, err = client.Decrypt(t.Context(), "storm", &service.DecryptRequest{
					Ciphertext: sealed.Ciphertext, KeyID: sealed.KeyID, Annotations: sealed.Annotations,
				})
			}
			if err != nil {
				t.Errorf("seed %d: %v", number, err)
			}
		})
	}
	group.Wait()
}

// fill makes a provider log more than its queue and the pipe behind it can hold.
func fill(t *testing.T, p provider) {
	t.Helper()
	client, err := kmsv2.NewGRPCService(t.Context(), "unix://"+p.socket, "monitoring", 10*time.Second)
	suite.Must(t, err)
	dropped := func() bool {
		for range 500 {
			if _, err := client.Encrypt(context.WithoutCancel(t.Context()), "fill", make([]byte, 32)); err != nil {
				t.Errorf("Encrypt: %v", err)
				return true
			}
		}
		return !strings.Contains(p.metrics(), "log_lines_dropped_total 0")
	}
	if !parts.Eventually(time.Minute, dropped) {
		t.Error("no line is dropped")
	}
}
