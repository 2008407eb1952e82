package e2e_test

import (
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"vault-kube-kms.test/cluster"
	"vault-kube-kms.test/parts"
)

// A provider of another cluster logs in with a service account of this one, whose API server reviews each
// login. While that API server is away, no new login is possible, and the provider names the reviewer.
func TestAServiceAccountOfAnotherClusterLogsIn(t *testing.T) {
	t.Parallel()
	c := start(t, func(s *cluster.Settings) {
		s.Encryption = func(string) string { return cluster.Encrypting("secrets", cluster.Identity) }
	})
	const account = "/api/v1/namespaces/default/serviceaccounts"
	must(t, c.api.ask("POST", account, http.StatusCreated, map[string]any{
		"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata{Name: "kms"},
	}, nil))
	// The service account may ask for the review of its own token.
	must(t, c.api.ask("POST", "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings", http.StatusCreated, map[string]any{
		"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding", "metadata": metadata{Name: "kms"},
		"roleRef": map[string]any{
			"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "system:auth-delegator",
		},
		"subjects": []any{map[string]any{"kind": "ServiceAccount", "name": "kms", "namespace": "default"}},
	}, nil))
	authority, err := os.ReadFile(c.api.CAFile)
	must(t, err)
	for _, request := range []struct {
		path string
		body map[string]any
	}{
		{"sys/auth/kubernetes", map[string]any{"type": "kubernetes"}},
		{"auth/kubernetes/config", map[string]any{
			"kubernetes_host": c.api.URL, "kubernetes_ca_cert": string(authority), "disable_local_ca_jwt": true,
		}},
		{"auth/kubernetes/role/kms", map[string]any{
			"bound_service_account_names": "kms", "bound_service_account_namespaces": "default",
			"token_policies": c.Tenant.Key, "token_ttl": 10, "token_max_ttl": 10,
		}},
	} {
		_, err := c.Bao.Ask("POST", request.path, request.body)
		must(t, err)
	}
	file := filepath.Join(shortDir(t), "token")
	newToken := func() {
		t.Helper()
		var made struct {
			Status struct{ Token string }
		}
		must(t, c.api.ask("POST", account+"/kms/token", http.StatusCreated, map[string]any{
			"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest",
			"spec": map[string]any{"expirationSeconds": 600},
		}, &made))
		must(t, os.WriteFile(file, []byte(made.Status.Token), 0o600))
	}
	newToken()
	p, err := parts.StartPlugin(parts.Way{}, "plugin", needed(t, "PROVIDER"), "unix://"+filepath.Join(shortDir(t), "kms.sock"),
		"--vault-address=https://"+c.Bao.Address, "--tls-ca-file="+c.Bao.CAFile, "--vault-key-path=transit/keys/"+c.Tenant.Key,
		"--auth-method=kubernetes", "--kubernetes-role=kms", "--kubernetes-jwt-path="+file, "--outage-grace=0s")
	must(t, err)
	t.Cleanup(func() {
		p.Stop()
		if t.Failed() {
			t.Logf("plugin printed:\n%s", parts.Tail(p.Printed()))
		}
	})
	wait := func(what string, holds func() bool) {
		t.Helper()
		watch := parts.StartWatch()
		if !parts.Eventually(65*time.Second, holds) {
			t.Fatalf("%s: not within %v", what, watch)
		}
		t.Logf("%s after %v", what, watch)
	}
	wait("healthy", p.Healthy)
	c.api.Kill()
	wait("refused without the reviewer", func() bool {
		return !p.Healthy() && strings.Contains(p.Printed(), "the reviewing API server rejects the JWT or cannot be reached")
	})
	must(t, c.api.Start())
	wait("healthy again after the reviewer is back", p.Healthy)
	must(t, c.api.ask("DELETE", account+"/kms", http.StatusOK, nil, nil))
	wait("refused without its service account", func() bool { return !p.Healthy() })
	must(t, c.api.ask("POST", account, http.StatusCreated, map[string]any{
		"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata{Name: "kms"},
	}, nil))
	newToken()
	wait("healthy with a token of the new service account", p.Healthy)
}
