package conformance_test

import (
	"bytes"
	"fmt"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"

	"google.golang.org/protobuf/proto"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/server/options/encryptionconfig"
	"k8s.io/apiserver/pkg/storage/value"
	"k8s.io/apiserver/pkg/storage/value/encrypt/envelope/kmsv2"
	kmstypes "k8s.io/apiserver/pkg/storage/value/encrypt/envelope/kmsv2/v2"

	"vault-kube-kms.test/parts"
)

const configuration = `apiVersion: apiserver.config.k8s.io/v1
kind: EncryptionConfiguration
resources:
  - resources: [secrets]
    providers:
      - kms: {apiVersion: v2, name: tried, endpoint: %q, timeout: 3s}
`

const prefix = "k8s:enc:kms:v2:tried:"

var secret, place = []byte("a secret"), value.DefaultContext("/registry/secrets/default/tried")

// apiServer returns the code of an API server that has just started, when its health check of the plugin is good.
func apiServer(t *testing.T, socket, id string) value.Transformer {
	t.Helper()
	file := filepath.Join(t.TempDir(), "config.yaml")
	must(t, os.WriteFile(file, fmt.Appendf(nil, configuration, socket), 0o600))
	config, err := encryptionconfig.LoadEncryptionConfig(t.Context(), file, false, id)
	must(t, err)
	var last error
	if !parts.Eventually(startBound, func() bool {
		last = config.HealthChecks[0].Check(httptest.NewRequest("GET", "/readyz", nil))
		return last == nil
	}) {
		t.Fatalf("the health check of the API server: %v", last)
	}
	return config.Transformers[schema.GroupResource{Resource: "secrets"}]
}

// TestAPIServerUsesThePlugin stores a Secret by the code of an API server, and reads it by that of one that has
// started later. The plugin is the one at SOCKET, or ours.
func TestAPIServerUsesThePlugin(t *testing.T) {
	socket := os.Getenv("SOCKET")
	if socket == "" {
		socket = onKeyFile(t).Endpoint
	}
	stored, err := apiServer(t, socket, "first").TransformToStorage(t.Context(), secret, place)
	must(t, err)
	body, isTheirs := bytes.CutPrefix(stored, []byte(prefix))
	object := &kmstypes.EncryptedObject{}
	if err := proto.Unmarshal(body, object); err != nil || !isTheirs {
		t.Fatalf("what is stored: %v", err)
	}
	must(t, kmsv2.ValidateEncryptedObject(object))
	later := apiServer(t, socket, "later")
	read, stale, err := later.TransformFromStorage(t.Context(), stored, place)
	if err != nil || stale || !bytes.Equal(read, secret) {
		t.Errorf("read as %d bytes, stale %v: %v", len(read), stale, err)
	}
	object.EncryptedDEKSource[len(object.EncryptedDEKSource)/2] ^= 1
	body, err = proto.Marshal(object)
	must(t, err)
	if _, _, err := later.TransformFromStorage(t.Context(), append([]byte(prefix), body...), place); err == nil {
		t.Error("a changed seed was accepted")
	}
}
