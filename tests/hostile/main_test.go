// Package hostile_test attacks the release binary through its socket and its ports, and searches its memory.
package hostile_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"k8s.io/apiserver/pkg/storage/value/encrypt/envelope/kmsv2"
	"k8s.io/kms/pkg/service"

	"vault-kube-kms.test/parts"
	"vault-kube-kms.test/suite"
)

// callTimeout is kube-apiserver's default time limit of a call.
const callTimeout = 3 * time.Second

var (
	needed     = suite.Needed
	must       = suite.Must
	shortDir   = suite.ShortDir
	localFlags = suite.LocalFlags
)

// The floods are measured, so they run one after the other.
func TestMain(m *testing.M) { suite.Main(m, 1, shared.End) }

// shared is the OpenBao of all tests.
var shared = suite.Shared[*parts.OpenBao]{Start: parts.StartDevOpenBao}

// newTenant returns a tenant with a key and a role, and the secret ID that is in its file.
func newTenant(t *testing.T) (n *parts.Tenant, secretID string) {
	t.Helper()
	n, err := shared.Use(t).NewTenant(parts.RandomName(), shortDir(t), 3_600, parts.UseOfKey...)
	must(t, err)
	must(t, n.MakeKey())
	secretID, err = n.NewSecretID()
	must(t, err)
	must(t, n.WriteSecretID(secretID))
	return n, secretID
}

// plugin is a running process of the binary under test.
type plugin struct {
	*parts.Process
	socket string
	// health and inside are the addresses of its two HTTP ports.
	health, inside string
}

// start starts a plugin and waits until it is healthy.
func start(t *testing.T, flags ...string) *plugin {
	t.Helper()
	p := &plugin{socket: filepath.Join(shortDir(t), "kms.sock"), health: parts.FreeAddress(), inside: parts.FreeAddress()}
	args := []string{needed(t, "PROVIDER"), "--listen-address=unix://" + p.socket}
	for flag, address := range map[string]string{"health": p.health, "metrics": p.inside} {
		args = append(args, fmt.Sprintf("--%s-port=%s", flag, address[strings.LastIndexByte(address, ':')+1:]))
	}
	process, err := parts.Way{}.Start("plugin", append(args, flags...))
	must(t, err)
	p.Process = process
	t.Cleanup(func() {
		if !p.Stop() {
			t.Error("the plugin did not end on SIGTERM")
		}
		if t.Failed() {
			t.Logf("plugin %d printed:\n%s", p.Pid(), parts.Tail(p.Printed()))
		}
	})
	client := p.client(t)
	healthy := parts.Eventually(20*time.Second, func() bool {
		answer, err := client.Status(t.Context())
		return err == nil && answer.Healthz == "ok"
	})
	if !healthy {
		t.Fatal("the plugin was never healthy")
	}
	return p
}

// client returns the API server's own client on a new connection.
func (p *plugin) client(t *testing.T) service.Service {
	t.Helper()
	client, _ := p.newcomer(t)
	return client
}

// newcomer returns a client and a function that closes its connection before the end of the test.
func (p *plugin) newcomer(t *testing.T) (service.Service, context.CancelFunc) {
	t.Helper()
	ctx, leave := context.WithCancel(t.Context())
	client, err := kmsv2.NewGRPCService(ctx, "unix://"+p.socket, "hostile", parts.Stretched(callTimeout))
	must(t, err)
	return client, leave
}

// file returns the content of a file of /proc/PID.
func (p *plugin) file(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/%s", p.Pid(), name))
	must(t, err)
	return string(text)
}

// forgetPeak resets the kernel's peak of the resident memory.
func (p *plugin) forgetPeak(t *testing.T) {
	t.Helper()
	must(t, os.WriteFile(fmt.Sprintf("/proc/%d/clear_refs", p.Pid()), []byte("5"), 0))
}

// memory returns a size of /proc/PID/status in bytes, such as VmRSS or VmHWM.
func (p *plugin) memory(t *testing.T, name string) int {
	t.Helper()
	_, after, _ := strings.Cut(p.file(t, "status"), name+":")
	kibibytes, err := strconv.Atoi(strings.Fields(after)[0])
	must(t, err)
	return kibibytes << 10
}

// cpu returns its CPU time.
func (p *plugin) cpu(t *testing.T) time.Duration {
	t.Helper()
	stat := p.file(t, "stat")
	// The name in parentheses may hold blanks; user and system time are the 12th and 13th field after it.
	fields := strings.Fields(stat[strings.LastIndexByte(stat, ')')+1:])
	ticks := 0
	for _, field := range fields[11:13] {
		value, err := strconv.Atoi(field)
		must(t, err)
		ticks += value
	}
	return time.Duration(ticks) * time.Second / userHz
}

// userHz is the unit of times in /proc, on all Linux systems.
const userHz = 100

// descriptors returns the number of its open descriptors.
func (p *plugin) descriptors(t *testing.T) int {
	t.Helper()
	open, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", p.Pid()))
	must(t, err)
	return len(open)
}

// raiseLimit raises the limit of open descriptors of this process.
func raiseLimit(t *testing.T) {
	t.Helper()
	var limit unix.Rlimit
	must(t, unix.Getrlimit(unix.RLIMIT_NOFILE, &limit))
	limit.Cur = limit.Max
	must(t, unix.Setrlimit(unix.RLIMIT_NOFILE, &limit))
}
