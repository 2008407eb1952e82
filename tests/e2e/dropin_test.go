package e2e_test

import (
	"bytes"
	"crypto/rand"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"k8s.io/apiserver/pkg/storage/value/encrypt/envelope/kmsv2"
	"k8s.io/kms/pkg/service"

	"vault-kube-kms.test/cluster"
	"vault-kube-kms.test/parts"
	"vault-kube-kms.test/suite"
)

// TestExistingCommandLines starts our binary as existing installations start the original: with the command lines
// of their manifests, several in one network namespace, all with the default ports.
func TestExistingCommandLines(t *testing.T) {
	t.Parallel()
	if !suite.ApartFromNetwork(t) {
		return
	}
	dir, way := shortDir(t), parts.Way{Logs: shortDir(t)}
	bao, err := parts.StartOpenBao(way, needed(t, "BAO"), dir)
	must(t, err)
	t.Cleanup(bao.Kill)
	root, err := bao.NewTenant("my-key", shortDir(t), 60, parts.UseOfKey...)
	must(t, err)
	must(t, root.MakeKey())
	admin, err := bao.Within("admin")
	must(t, err)
	team, err := admin.NewTenant("my-key", shortDir(t), 60, parts.UseOfKey...)
	must(t, err)
	must(t, team.MakeKey())

	address := "https://" + bao.Address
	installations := []installation{
		{
			// An operator of OpenShift, with the older form of the key and Go's single dashes.
			resource: "secrets", socket: filepath.Join(dir, "kms-1.sock"),
			args: []string{
				"-listen-address=unix://" + filepath.Join(dir, "kms-1.sock"), "-vault-address=" + address,
				"-transit-mount=transit", "-transit-key=my-key", "-approle-role-id=" + team.RoleID,
				"-approle-secret-id-path=" + team.SecretIDFile, "-vault-namespace=admin", "-tls-skip-verify",
				"--log-level=debug-extended",
			},
		},
		{
			// The newer documentation, with a plain path as socket and every flag that it names.
			resource: "configmaps", socket: filepath.Join(dir, "kms-2.sock"),
			args: []string{
				"--listen-address=" + filepath.Join(dir, "kms-2.sock"), "--vault-address=" + address,
				"--vault-namespace=", "--vault-auth-namespace=", "--vault-key-path=transit/keys/my-key",
				"--vault-connection-timeout=30s", "--tls-ca-file=" + bao.CAFile, "--tls-sni=localhost",
				"--tls-skip-verify=false", "--auth-method=approle", "--auth-mount=approle",
				"--approle-role-id=" + root.RoleID, "--approle-secret-id-path=" + root.SecretIDFile,
				"--zap-log-level=info", "--metrics-port=9090", "--health-port=8081", "--disable-runtime-metrics=false",
			},
		},
		{
			// An environment file, as in a systemd unit.
			resource: "serviceaccounts", socket: filepath.Join(dir, "kms-3.sock"),
			variables: []string{
				"VAULT_KUBE_KMS_LISTEN_ADDRESS=unix://" + filepath.Join(dir, "kms-3.sock"),
				"VAULT_KUBE_KMS_VAULT_ADDRESS=" + address, "VAULT_KUBE_KMS_VAULT_KEY_PATH=transit/keys/my-key",
				"VAULT_KUBE_KMS_TLS_CA_FILE=" + bao.CAFile, "VAULT_KUBE_KMS_APPROLE_ROLE_ID=" + root.RoleID,
				"VAULT_KUBE_KMS_APPROLE_SECRET_ID_PATH=" + root.SecretIDFile,
			},
		},
	}
	var rules []cluster.Rule
	for index := range installations {
		i := &installations[index]
		i.process, err = way.Start(i.resource, append([]string{programs(t).Plugin}, i.args...), i.variables...)
		must(t, err)
		t.Cleanup(func() { i.process.Stop() })
		i.preflight(t)
		rules = append(rules, cluster.Rule{
			Resources: i.resource, Providers: []string{cluster.NamedKMS(i.resource, "unix://"+i.socket)},
		})
	}
	// The first one has the default ports. The others log that the ports are in use, and serve without them.
	for _, url := range []string{"http://127.0.0.1:8081/healthz", "http://127.0.0.1:8081/readyz", "http://127.0.0.1:9090/metrics"} {
		response, err := http.Get(url)
		must(t, err)
		_ = response.Body.Close()
		if response.StatusCode != http.StatusOK {
			t.Errorf("%s is %s", url, response.Status)
		}
	}
	for _, i := range installations[1:] {
		for _, port := range []string{"health", "metrics"} {
			if warning := "the " + port + " port cannot be used"; !strings.Contains(i.process.Printed(), warning) {
				t.Errorf("%s does not say that %s: %s", i.resource, warning, i.process.Printed())
			}
		}
	}
	requireServed(t, way, cluster.Encryption(rules...))
}

// requireServed requires that an API server stores each kind of object through its own plugin, and reads it after
// a restart.
func requireServed(t *testing.T, way parts.Way, encryption string) {
	t.Helper()
	dir := shortDir(t)
	file := filepath.Join(dir, "encryption.yaml")
	must(t, os.WriteFile(file, []byte(encryption), 0o600))
	etcd, err := parts.StartEtcd(way, programs(t).Etcd, dir)
	must(t, err)
	t.Cleanup(etcd.Kill)
	program := filepath.Join(programs(t).Kubernetes, "kube-apiserver")
	server, err := parts.NewAPIServer(way, "kube-apiserver", program, dir, etcd, file)
	must(t, err)
	must(t, server.Start())
	t.Cleanup(func() { server.Kill() })
	for _, kind := range []string{"Secret", "ConfigMap", "ServiceAccount"} {
		resource := strings.ToLower(kind) + "s"
		path := "/api/v1/namespaces/default/" + resource
		must(t, api{server}.ask("POST", path, http.StatusCreated, object{
			"apiVersion": "v1", "kind": kind, "metadata": object{"name": "one"},
		}, nil))
		entries, err := etcd.Under("/registry/" + resource + "/default/one")
		must(t, err)
		if len(entries) != 1 || (stored{raw: entries[0].Value}).object(t, resource) == nil {
			t.Errorf("a %s is stored as %v", kind, entries)
		}
		server.Kill()
		must(t, server.Start())
		must(t, server.UntilOK(path+"/one"))
	}
}

// installation is a command line of a plugin and the resources that it encrypts.
type installation struct {
	resource, socket string
	args, variables  []string
	process          *parts.Process
}

// preflight makes the calls of OpenShift's preflight: Status until it is ok, for half a minute at most, then a
// round trip of 32 random bytes.
func (i installation) preflight(t *testing.T) {
	t.Helper()
	must(t, i.process.Until(func() error { _, err := os.Stat(i.socket); return err }))
	client, err := kmsv2.NewGRPCService(t.Context(), "unix://"+i.socket, "preflight", 10*time.Second)
	must(t, err)
	if !parts.EventuallyEvery(time.Second, 30*time.Second, func() bool {
		status, err := client.Status(t.Context())
		return err == nil && status.Healthz == "ok"
	}) {
		t.Fatalf("Status was never ok: %s", i.process.Printed())
	}
	seed := make([]byte, 32)
	_, _ = rand.Read(seed)
	sealed, err := client.Encrypt(t.Context(), "preflight-encrypt", seed)
	must(t, err)
	opened, err := client.Decrypt(t.Context(), "preflight-decrypt", &service.DecryptRequest{
		Ciphertext: sealed.Ciphertext, KeyID: sealed.KeyID, Annotations: sealed.Annotations,
	})
	if err != nil || !bytes.Equal(opened, seed) {
		t.Fatalf("the round trip fails: %v", err)
	}
}
