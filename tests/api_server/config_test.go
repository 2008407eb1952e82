package apiserver_test

import (
	"bytes"
	"fmt"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"

	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/server/options/encryptionconfig"
	"k8s.io/apiserver/pkg/storage/value"
)

const configuration = `apiVersion: apiserver.config.k8s.io/v1
kind: EncryptionConfiguration
resources:
  - resources: [secrets]
    providers:
      - kms: {apiVersion: v2, name: %s, endpoint: %q, timeout: 3s}
      - identity: {}
`

// The whole way of a Secret: what one API server stores, it and a second one read back.
func TestAnEncryptionConfiguration(t *testing.T) {
	onEachPlugin(t, func(t *testing.T, p *plugin) {
		name := randomName()
		file := filepath.Join(shortDir(t), "config.yaml")
		if err := os.WriteFile(file, fmt.Appendf(nil, configuration, name, p.endpoint), 0o600); err != nil {
			t.Fatal(err)
		}
		secret := []byte(`{"kind":"Secret","data":{"password":"Y2FuYXJ5"}}`)
		where := value.DefaultContext("/registry/secrets/default/canary")

		writer := secretsOf(t, file, "api-server-1")
		stored, err := writer.TransformToStorage(t.Context(), secret, where)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.HasPrefix(stored, []byte("k8s:enc:kms:v2:"+name+":")) {
			t.Errorf("the prefix is wrong: %.40q", stored)
		}
		if bytes.Contains(stored, []byte("Y2FuYXJ5")) {
			t.Error("the Secret is stored in clear")
		}
		// The second one has its own seed and must ask the plugin for the first one's.
		for id, reader := range map[string]value.Transformer{
			"api-server-1": writer, "api-server-2": secretsOf(t, file, "api-server-2"),
		} {
			read, stale, err := reader.TransformFromStorage(t.Context(), stored, where)
			if err != nil || stale || !bytes.Equal(read, secret) {
				t.Errorf("%s: stale %v, %v", id, stale, err)
			}
		}
		elsewhere := value.DefaultContext("/registry/secrets/default/other")
		if _, _, err := writer.TransformFromStorage(t.Context(), stored, elsewhere); err == nil {
			t.Error("the Secret opens under another name")
		}
	})
}

// secretsOf is what an API server with this configuration does with Secrets, once it is healthy.
func secretsOf(t *testing.T, file, apiServerID string) value.Transformer {
	t.Helper()
	config, err := encryptionconfig.LoadEncryptionConfig(t.Context(), file, false, apiServerID)
	if err != nil {
		t.Fatal(err)
	}
	if len(config.HealthChecks) != 1 {
		t.Fatalf("%d health checks", len(config.HealthChecks))
	}
	if err := config.HealthChecks[0].Check(httptest.NewRequest("GET", "/healthz", nil)); err != nil {
		t.Fatalf("%s: %v", config.HealthChecks[0].Name(), err)
	}
	return config.Transformers[schema.GroupResource{Resource: "secrets"}]
}
