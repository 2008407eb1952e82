package apiserver_test

import (
	"bytes"
	"context"
	"fmt"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"

	"google.golang.org/protobuf/proto"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/server/options/encryptionconfig"
	"k8s.io/apiserver/pkg/storage/value"
	kmstypes "k8s.io/apiserver/pkg/storage/value/encrypt/envelope/kmsv2/v2"

	"vault-kube-kms.test/parts"
)

const configuration = `apiVersion: apiserver.config.k8s.io/v1
kind: EncryptionConfiguration
resources:
  - resources: [secrets]
    providers:
      - kms: {apiVersion: v2, name: %s, endpoint: %q, timeout: 3s}
      - identity: {}
`

var secretsPlace = value.DefaultContext("/registry/secrets/default/canary")

// apiServer runs the code by which an API server with one provider stores and reads Secrets.
type apiServer struct {
	id          string
	transformer value.Transformer
	// check asks for Status, and for Encrypt on a new key id, as often as an API server does.
	check func() error
}

// newAPIServer is a healthy API server on the node of a plugin.
func newAPIServer(t *testing.T, provider, id string, p *plugin) *apiServer {
	t.Helper()
	file := filepath.Join(shortDir(t), "config.yaml")
	if err := os.WriteFile(file, fmt.Appendf(nil, configuration, provider, p.endpoint), 0o600); err != nil {
		t.Fatal(err)
	}
	config, err := encryptionconfig.LoadEncryptionConfig(t.Context(), file, false, id)
	if err != nil {
		t.Fatal(err)
	}
	if len(config.HealthChecks) != 1 {
		t.Fatalf("%d health checks", len(config.HealthChecks))
	}
	server := &apiServer{
		id:          id,
		transformer: config.Transformers[schema.GroupResource{Resource: "secrets"}],
		check: func() error {
			return config.HealthChecks[0].Check(httptest.NewRequest("GET", "/healthz", nil))
		},
	}
	if err := server.check(); err != nil {
		t.Fatalf("%s: %v", id, err)
	}
	return server
}

func (s *apiServer) write(ctx context.Context, secret []byte) ([]byte, error) {
	return s.transformer.TransformToStorage(ctx, secret, secretsPlace)
}

// read returns the plaintext of a stored Secret, and whether the next update would write it again.
func (s *apiServer) read(ctx context.Context, stored []byte) (secret []byte, stale bool, err error) {
	return s.transformer.TransformFromStorage(ctx, stored, secretsPlace)
}

func (s *apiServer) mustWrite(t *testing.T, secret []byte) []byte {
	t.Helper()
	stored, err := s.write(t.Context(), secret)
	if err != nil {
		t.Fatalf("%s: %v", s.id, err)
	}
	return stored
}

// requireReads requires that a stored Secret is read as it was written, and that it is stale or not.
func (s *apiServer) requireReads(t *testing.T, stored, secret []byte, stale bool) {
	t.Helper()
	read, isStale, err := s.read(t.Context(), stored)
	if err != nil || !bytes.Equal(read, secret) || isStale != stale {
		t.Errorf("%s: stale %v, %v", s.id, isStale, err)
	}
}

// storedUnder returns the key id under which a Secret is stored.
func storedUnder(t *testing.T, provider string, stored []byte) string {
	t.Helper()
	encoded, found := bytes.CutPrefix(stored, []byte("k8s:enc:kms:v2:"+provider+":"))
	var object kmstypes.EncryptedObject
	if err := proto.Unmarshal(encoded, &object); err != nil || !found {
		t.Fatalf("the Secret is not stored by %s: %v", provider, err)
	}
	return object.KeyID
}

// TestAnEncryptionConfiguration expects that an API server and a second one read the Secret that the first one
// stored.
func TestAnEncryptionConfiguration(t *testing.T) {
	onEachPlugin(t, func(t *testing.T, p *plugin) {
		provider := parts.RandomName()
		secret := []byte(`{"kind":"Secret","data":{"password":"Y2FuYXJ5"}}`)
		writer := newAPIServer(t, provider, "api-server-1", p)
		stored := writer.mustWrite(t, secret)
		if !bytes.HasPrefix(stored, []byte("k8s:enc:kms:v2:"+provider+":")) {
			t.Errorf("the prefix is wrong: %.40q", stored)
		}
		if bytes.Contains(stored, []byte("Y2FuYXJ5")) {
			t.Error("the Secret is stored in clear")
		}
		writer.requireReads(t, stored, secret, false)
		// The second API server has its own seed, and must ask the plugin for the seed of the first one.
		newAPIServer(t, provider, "api-server-2", p).requireReads(t, stored, secret, false)

		elsewhere := value.DefaultContext("/registry/secrets/default/other")
		if _, _, err := writer.transformer.TransformFromStorage(t.Context(), stored, elsewhere); err == nil {
			t.Error("the Secret decrypts under another name")
		}
	})
}
