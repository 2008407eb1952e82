package apiserver_test

import (
	"net"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"vault-kube-kms.test/parts"
)

const (
	// The duration and the interval of the Status calls of OpenShift's preflight.
	preflightBound, preflightPause = 30 * time.Second, time.Second
	// The limits that OpenShift sets for an answer of Status.
	preflightLongest = 1024
)

// TestOpenShiftPreflightNamesWhatIsWrong starts a plugin with the command line of OpenShift's operators.
// OpenShift tries a plugin for 30 seconds before an API server uses it. The test expects the fault in Status
// within this time, and that the process stays, so that an administrator sees the cause and not a Pod that
// restarts. The plugin recovers by itself if the repair needs no other flags.
func TestOpenShiftPreflightNamesWhatIsWrong(t *testing.T) {
	t.Parallel()
	silent, full := listen(t).Addr().String(), blackHole(t)
	for name, c := range map[string]struct {
		code, cause string
		// spoil breaks an installation. It returns the flags, and a function that repairs the installation, if
		// there is one.
		spoil func(t *testing.T, n *tenant) (flags []string, mend func())
	}{
		"an address that never answers": {"keeper-timeout", silent, func(_ *testing.T, n *tenant) ([]string, func()) {
			return openShift(n, silent), nil
		}},
		"an address that drops packets": {"keeper-unreachable", full + ": nothing answers there", func(_ *testing.T, n *tenant) ([]string, func()) {
			return openShift(n, full), nil
		}},
		"a key that does not exist": {"key-missing", "no key", func(t *testing.T, n *tenant) ([]string, func()) {
			return openShift(n, n.Bao.Address), func() { must(t, n.MakeKey()) }
		}},
		"a wrong secret ID": {"login-refused", "secret ID", func(t *testing.T, n *tenant) ([]string, func()) {
			must(t, n.MakeKey())
			must(t, n.WriteSecretID("00000000-4711-4711-4711-000000000000"))
			return openShift(n, n.Bao.Address), func() { must(t, n.WriteSecretID(n.SecretID)) }
		}},
		"a wrong server name": {"keeper-unreachable", "elsewhere.example.org", func(t *testing.T, n *tenant) ([]string, func()) {
			must(t, n.MakeKey())
			return openShift(n, n.Bao.Address, "-tls-sni=elsewhere.example.org"), nil
		}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			n := sharedBao(t).role(t, parts.UseOfKey...)
			flags, mend := c.spoil(t, n)
			p := launch(t, newEndpoint(t), flags)
			p.waitAccepts(t)
			client, began := p.client(t), parts.StartWatch()
			status := func() string {
				answer, err := client.Status(t.Context())
				if err == nil {
					t.Fatalf("Status answers %v", answer)
				}
				return message(err)
			}
			var text string
			named := func() bool {
				text = status()
				return strings.HasPrefix(text, c.code+": ") && strings.Contains(text, c.cause)
			}
			if !parts.EventuallyEvery(preflightPause, preflightBound, named) {
				t.Fatalf("within %v, Status does not name %s and %q: %s", preflightBound, c.code, c.cause, text)
			}
			t.Logf("after %v: %s", began, text)
			requireOneLine(t, text)
			if len(text) > preflightLongest || strings.Contains(text, n.SecretID) {
				t.Errorf("%d bytes: %s", len(text), text)
			}
			if mend != nil {
				mend()
				p.waitHealthy(t)
				return
			}
			if parts.EventuallyEvery(preflightPause, 5*time.Second, func() bool { return !p.Alive() || !named() }) {
				t.Errorf("the process has ended: %s", text)
			}
		})
	}
}

// openShift returns the command line of OpenShift's operators: single dashes, the older form of the key, the
// keeper's authority, and no port for probes.
func openShift(n *tenant, address string, more ...string) []string {
	return append([]string{
		"-vault-address=https://" + address, "-transit-mount=" + n.Mount, "-transit-key=" + n.Key,
		"-approle-role-id=" + n.RoleID, "-approle-secret-id-path=" + n.SecretIDFile,
		"-tls-ca-file=" + n.Bao.CAFile, "-metrics-port=0",
	}, more...)
}

// listen opens a port that never reads: only the kernel accepts its connections.
func listen(t *testing.T) *net.TCPListener {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	t.Cleanup(func() { _ = listener.Close() })
	return listener.(*net.TCPListener)
}

// blackHole returns an address with a full queue. It drops the packets of further connections, as a firewall
// does.
func blackHole(t *testing.T) string {
	t.Helper()
	listener := listen(t)
	raw, err := listener.SyscallConn()
	must(t, err)
	var failed error
	must(t, raw.Control(func(socket uintptr) { failed = unix.Listen(int(socket), 0) }))
	must(t, failed)
	address := listener.Addr().String()
	for {
		queued, err := net.DialTimeout("tcp", address, 200*time.Millisecond)
		if err != nil {
			return address
		}
		t.Cleanup(func() { _ = queued.Close() })
	}
}
