package packages_test

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"k8s.io/apiserver/pkg/storage/value/encrypt/envelope/kmsv2"
	"k8s.io/kms/pkg/service"

	"vault-kube-kms.test/parts"
	"vault-kube-kms.test/suite"
)

const (
	unit   = "vault-kube-kms.service"
	socket = "/run/vault-kube-kms/vault-kube-kms.sock"
)

// This unit stands for a kubelet. It records the state that it finds at its start.
const kubelet = `[Unit]
Description=A stand-in for the kubelet

[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/bin/sh -ec 'test -S ` + socket + `; systemctl is-active ` + unit + ` > /var/lib/kubelet-found'

[Install]
WantedBy=multi-user.target
`

// TestTheServiceOnABootedMachine expects that the service is ready before the kubelet starts, uses a new secret
// ID without a restart, and is started again after a kill. An upgrade restarts nothing. Behind the socket unit
// the new program takes over without a refused connection or a lost call. A purge ends the service and keeps the
// credential.
func TestTheServiceOnABootedMachine(t *testing.T) {
	needRoot(t)
	bao := suite.Needed(t, "BAO")
	if !apart(t) {
		return
	}
	server, err := parts.StartDevOpenBao(parts.Way{}, bao, suite.ShortDir(t))
	suite.Must(t, err)
	defer server.Kill()
	root := unpacked(t)
	tenant := install(t, root, server)
	m := boot(t, root)

	if found := read(t, m.path("/var/lib/kubelet-found")); found != "active\n" {
		t.Errorf("the kubelet found the service %s", found)
	}
	if limits := m.property(t, unit, "MemorySwapMax") + m.property(t, unit, "LimitCORE"); limits != "00" {
		t.Errorf("the limits of swap and of core files are %s", limits)
	}
	client := m.client(t)
	requireRoundTrip(t, client)
	log := m.run(t, "journalctl", "--no-pager", "--unit="+unit)
	if !strings.Contains(log, "the sandbox is in force") || strings.Contains(log, `"level":"WARN"`) {
		t.Errorf("the log of the service: %s", log)
	}
	// Each step begins with the state that the previous step left.
	_ = t.Run("a new secret ID is taken up without a restart", func(t *testing.T) { m.renewSecretID(t, tenant, client) }) &&
		t.Run("what is killed is started again", func(t *testing.T) { m.kill(t, client) }) &&
		t.Run("what hangs is started again", func(t *testing.T) { m.hang(t, client) }) &&
		t.Run("two keys side by side", func(t *testing.T) { m.second(t) }) &&
		t.Run("an upgrade restarts nothing", func(t *testing.T) { m.upgrade(t, client) }) &&
		t.Run("a new program takes over behind the socket unit", func(t *testing.T) { m.takeOver(t) }) &&
		t.Run("purge", func(t *testing.T) { m.purge(t) })
}

// install installs the deb before the machine boots, and writes the settings as an administrator would.
func install(t *testing.T, root string, server *parts.OpenBao) *parts.Tenant {
	t.Helper()
	dpkg("--install")(t, root, file(t, first, "*.deb"))
	dir := filepath.Join(root, "etc/vault-kube-kms")
	tenant, err := server.NewTenant(parts.RandomName(), t.TempDir(), 600, parts.UseOfKey...)
	suite.Must(t, err)
	suite.Must(t, tenant.MakeKey())
	write(t, read(t, server.CAFile), 0o644, dir, "ca.pem")
	tenant.SecretIDFile = filepath.Join(dir, "approle-secret-id")
	writeSecretID(t, root, tenant, tenant.SecretID)
	write(t, read(t, dir, "vault-kube-kms.env")+variables(tenant), 0o644, dir, "vault-kube-kms.env")
	write(t, kubelet, 0o644, root, "etc/systemd/system/kubelet.service")
	run(t, "systemctl", "--root="+root, "enable", unit, "kubelet.service")
	return tenant
}

func variables(tenant *parts.Tenant) string {
	return fmt.Sprintf(`VAULT_KUBE_KMS_VAULT_ADDRESS="https://%s"
VAULT_KUBE_KMS_TLS_CA_FILE="/etc/vault-kube-kms/ca.pem"
VAULT_KUBE_KMS_VAULT_KEY_PATH="%s/keys/%s"
VAULT_KUBE_KMS_APPROLE_ROLE_ID="%s"
VAULT_KUBE_KMS_APPROLE_SECRET_ID_PATH="/etc/vault-kube-kms/approle-secret-id"
`, tenant.Bao.Address, tenant.Mount, tenant.Key, tenant.RoleID)
}

// writeSecretID replaces the file in one step. Only the service reads it.
func writeSecretID(t *testing.T, root string, tenant *parts.Tenant, secretID string) {
	t.Helper()
	draft := tenant.SecretIDFile + ".new"
	suite.Must(t, os.WriteFile(draft, []byte(secretID), 0o600))
	run(t, "chroot", root, "chown", "vault-kube-kms", "/etc/vault-kube-kms/approle-secret-id.new")
	suite.Must(t, os.Rename(draft, tenant.SecretIDFile))
}

// client is the API server's own client, which waits until the service is healthy.
func (m *machine) client(t *testing.T) service.Service {
	t.Helper()
	client, err := kmsv2.NewGRPCService(t.Context(), "unix://"+m.path(socket), "test", bound)
	suite.Must(t, err)
	requireHealthy(t, client)
	return client
}

func requireHealthy(t *testing.T, client service.Service) {
	t.Helper()
	var last error
	if !parts.Eventually(bound, func() bool {
		var answer *service.StatusResponse
		if answer, last = client.Status(t.Context()); last == nil && answer.Healthz != "ok" {
			last = fmt.Errorf("healthz: %s", answer.Healthz)
		}
		return last == nil
	}) {
		t.Fatalf("the service was never healthy: %v", last)
	}
}

func roundTrip(ctx context.Context, client service.Service) error {
	seed := []byte("0123456789abcdef0123456789abcdef")
	sealed, err := client.Encrypt(ctx, "packages", seed)
	if err != nil {
		return err
	}
	opened, err := client.Decrypt(ctx, "packages", &service.DecryptRequest{
		Ciphertext: sealed.Ciphertext, KeyID: sealed.KeyID, Annotations: sealed.Annotations,
	})
	if err == nil && !bytes.Equal(opened, seed) {
		err = fmt.Errorf("it decrypts to another plaintext")
	}
	return err
}

func requireRoundTrip(t *testing.T, client service.Service) {
	t.Helper()
	suite.Must(t, roundTrip(t.Context(), client))
}

func (m *machine) renewSecretID(t *testing.T, tenant *parts.Tenant, client service.Service) {
	before := m.property(t, unit, "InvocationID")
	fresh, err := tenant.NewSecretID()
	suite.Must(t, err)
	suite.Must(t, tenant.DestroySecretID(tenant.SecretID))
	writeSecretID(t, m.root, tenant, fresh)
	revoked, err := tenant.RevokeTokens()
	if suite.Must(t, err); revoked == 0 {
		t.Error("no token was revoked")
	}
	if !parts.Eventually(bound, func() bool { return roundTrip(t.Context(), client) == nil }) {
		t.Errorf("the new secret ID is not used: %v", roundTrip(t.Context(), client))
	}
	m.run(t, "systemctl", "reload", unit)
	if !parts.Eventually(bound, func() bool {
		return strings.Contains(m.run(t, "journalctl", "--no-pager", "--unit="+unit), "SIGHUP: credentials and authorities are read again")
	}) {
		t.Error("a reload is not logged")
	}
	if m.property(t, unit, "InvocationID") != before {
		t.Error("the service was restarted")
	}
}

func (m *machine) kill(t *testing.T, client service.Service) {
	before := m.property(t, unit, "MainPID")
	m.run(t, "kill", "-KILL", before)
	if !parts.Eventually(bound, func() bool {
		now := m.property(t, unit, "MainPID")
		return now != "0" && now != before && m.property(t, unit, "ActiveState") == "active"
	}) {
		t.Fatal("systemd does not start it again")
	}
	requireHealthy(t, client)
	requireRoundTrip(t, client)
}

// hang stops the process with SIGSTOP. It shortens the time of the watchdog to keep the test short.
func (m *machine) hang(t *testing.T, client service.Service) {
	write(t, "[Service]\nWatchdogSec=2\n", 0o644, m.path("/run/systemd/system/"+unit+".d/fast.conf"))
	m.run(t, "systemctl", "daemon-reload")
	m.run(t, "systemctl", "restart", unit)
	requireHealthy(t, client)
	before := m.property(t, unit, "MainPID")
	m.run(t, "kill", "-STOP", before)
	if !parts.Eventually(bound, func() bool {
		now := m.property(t, unit, "MainPID")
		return now != "0" && now != before && m.property(t, unit, "ActiveState") == "active"
	}) {
		t.Fatal("the watchdog does not end the service")
	}
	requireHealthy(t, client)
}

// second runs an instance with settings of its own beside the service.
func (m *machine) second(t *testing.T) {
	dir := m.path("/etc/vault-kube-kms")
	write(t, read(t, dir, "vault-kube-kms.env")+"VAULT_KUBE_KMS_HEALTH_PORT=8082\nVAULT_KUBE_KMS_METRICS_PORT=9091\n",
		0o644, dir, "second.env")
	m.run(t, "systemctl", "start", "vault-kube-kms@second.service")
	conn, err := net.Dial("unix", m.path("/run/vault-kube-kms-second/vault-kube-kms.sock"))
	if err != nil {
		t.Fatal(err)
	}
	_ = conn.Close()
	if state := m.property(t, unit, "ActiveState"); state != "active" {
		t.Errorf("the first one is %s", state)
	}
	m.run(t, "systemctl", "stop", "vault-kube-kms@second.service")
	suite.Must(t, os.Remove(filepath.Join(dir, "second.env")))
}

func (m *machine) upgrade(t *testing.T, client service.Service) {
	before := m.property(t, unit, "InvocationID")
	write(t, read(t, file(t, next, "*.deb")), 0o644, m.root, "root/next.deb")
	say := m.run(t, "dpkg", "--force-confdef", "--force-confold", "--install", "/root/next.deb")
	if !strings.Contains(say, "for the new one: systemctl restart vault-kube-kms.service") {
		t.Errorf("the upgrade does not say what to do: %s", say)
	}
	if m.property(t, unit, "InvocationID") != before {
		t.Error("the upgrade restarted the service")
	}
	if exe := m.executable(t); !strings.HasSuffix(exe, " (deleted)") {
		t.Errorf("%s was not replaced", exe)
	}
	requireRoundTrip(t, client)
}

// executable is the program that runs as the service.
func (m *machine) executable(t *testing.T) string {
	t.Helper()
	return m.run(t, "readlink", "/proc/"+m.property(t, unit, "MainPID")+"/exe")
}

func (m *machine) takeOver(t *testing.T) {
	m.run(t, "systemctl", "stop", unit)
	m.run(t, "systemctl", "enable", "--now", "vault-kube-kms.socket")
	m.run(t, "systemctl", "start", unit)
	requireOwner := m.run(t, "stat", "--format=%a %U %G", socket)
	if requireOwner != "770 vault-kube-kms vault-kube-kms" {
		t.Errorf("the socket: %s", requireOwner)
	}
	// systemd listens as root.
	checked, err := m.attempt("sh", "-ec", `set -a
		. /etc/vault-kube-kms/vault-kube-kms.env
		exec setpriv --reuid=vault-kube-kms --regid=vault-kube-kms --clear-groups /usr/bin/vault-kube-kms check --listen-address=unix://`+socket)
	if err != nil || !strings.Contains(checked, "a provider serves at") {
		t.Errorf("check as the user of the service: %v\n%s", err, checked)
	}
	client := m.client(t)
	ctx, stop := context.WithCancel(t.Context())
	var group sync.WaitGroup
	var calls, dials atomic.Int64
	group.Go(func() {
		for ; ctx.Err() == nil; calls.Add(1) {
			if err := roundTrip(t.Context(), client); err != nil {
				t.Errorf("a call is lost: %v", err)
				return
			}
		}
	})
	group.Go(func() {
		for ; ctx.Err() == nil; dials.Add(1) {
			conn, err := net.Dial("unix", m.path(socket))
			if err != nil {
				t.Errorf("a dial is refused: %v", err)
				return
			}
			_ = conn.Close()
			time.Sleep(5 * time.Millisecond)
		}
	})
	more := func() {
		t.Helper()
		before := calls.Load()
		if !parts.Eventually(bound, func() bool { return calls.Load() > before+2 || t.Failed() }) {
			t.Error("calls are no longer answered")
		}
	}
	more()
	for range 3 {
		before := m.property(t, unit, "MainPID")
		m.run(t, "systemctl", "restart", unit)
		if m.property(t, unit, "MainPID") == before {
			t.Error("the service was not restarted")
		}
		more()
	}
	stop()
	group.Wait()
	if exe := m.executable(t); exe != "/usr/bin/vault-kube-kms" {
		t.Errorf("%s runs", exe)
	}
	t.Logf("%d round trips and %d dials over 3 restarts", calls.Load(), dials.Load())
}

func (m *machine) purge(t *testing.T) {
	running := "/proc/" + m.property(t, unit, "MainPID")
	say := m.run(t, "dpkg", "--purge", "vault-kube-kms")
	if !strings.Contains(say, "holds files that are not of the package; they stay") {
		t.Errorf("the purge does not say what stays: %s", say)
	}
	for _, gone := range []string{running, socket, "/run/vault-kube-kms", "/usr/bin/vault-kube-kms", "/etc/vault-kube-kms/vault-kube-kms.env"} {
		if exists(m.path(gone)) {
			t.Errorf("%s is left", gone)
		}
	}
	if !exists(m.path("/etc/vault-kube-kms/approle-secret-id")) {
		t.Error("the credential was removed")
	}
	if failed := m.run(t, "systemctl", "list-units", "--failed", "--no-legend", "--plain"); failed != "" {
		t.Errorf("units failed: %s", failed)
	}
}
