package apiserver_test

import (
	"context"
	"fmt"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"k8s.io/apiserver/pkg/storage/value/encrypt/envelope/kmsv2"
	kmsapi "k8s.io/kms/apis/v2"
	"k8s.io/kms/pkg/service"

	"vault-kube-kms.test/parts"
)

const (
	// callTimeout is kube-apiserver's default time limit of a call.
	callTimeout = 3 * time.Second
	// These limit the start and the end of a plugin on a busy machine.
	startBound = 20 * time.Second
	stopBound  = parts.StopBound
	// For calls that a test holds until all of them run, which takes some time on a busy machine.
	patient        = "--vault-request-timeout=25s"
	patientTimeout = 30 * time.Second
)

// plugin is one running process of the binary under test.
type plugin struct {
	*parts.Process
	endpoint string
	flags    []string
}

// launch starts a plugin and does not wait. A wrapper is the start of a command line that runs its last
// arguments, such as a shell.
func launch(t *testing.T, endpoint string, flags []string, wrapper ...string) *plugin {
	t.Helper()
	return launchBy(t, parts.Way{}, endpoint, flags, wrapper...)
}

func launchBy(t *testing.T, way parts.Way, endpoint string, flags []string, wrapper ...string) *plugin {
	t.Helper()
	args := append(wrapper, needed(t, "PROVIDER"), "--listen-address="+endpoint)
	for _, port := range []string{"--health-port=", "--metrics-port="} {
		if !strings.Contains(strings.Join(flags, " "), port) {
			args = append(args, port+"0")
		}
	}
	args = append(args, flags...)
	process, err := way.Start("plugin", args)
	must(t, err)
	p := &plugin{process, endpoint, flags}
	t.Cleanup(func() {
		if !p.Stop() {
			t.Error("the plugin did not end on SIGTERM")
		}
		if t.Failed() {
			t.Logf("plugin %d printed:\n%s", p.Pid(), parts.Tail(p.Printed()))
		}
	})
	return p
}

// start launches a plugin on a socket of its own and waits until it is healthy.
func start(t *testing.T, flags []string) *plugin {
	t.Helper()
	p := launch(t, newEndpoint(t), flags)
	p.waitHealthy(t)
	return p
}

// address returns the address for a client: a path, or an abstract name with its @.
func (p *plugin) address() string { return dialled(p.endpoint) }

func dialled(endpoint string) string {
	path := strings.TrimPrefix(endpoint, "unix://")
	if name, abstract := strings.CutPrefix(path, "/@"); abstract {
		return "@" + name
	}
	return path
}

// client returns the API server's own client.
func (p *plugin) client(t *testing.T) service.Service {
	t.Helper()
	return clientOf(t, p.endpoint, callTimeout)
}

func clientOf(t *testing.T, endpoint string, timeout time.Duration) service.Service {
	t.Helper()
	client, err := kmsv2.NewGRPCService(t.Context(), endpoint, "test", timeout)
	if err != nil {
		t.Fatal(err)
	}
	return client
}

// conn returns a connection of plain grpc-go, with the authority of API servers since 1.32 unless the options set
// another one.
func (p *plugin) conn(t *testing.T, options ...grpc.DialOption) *grpc.ClientConn {
	t.Helper()
	dial := func(ctx context.Context, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", p.address())
	}
	options = append([]grpc.DialOption{
		grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithContextDialer(dial),
	}, options...)
	conn, err := grpc.NewClient("passthrough:///"+p.address(), options...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

func (p *plugin) raw(t *testing.T) (kmsapi.KeyManagementServiceClient, *grpc.ClientConn) {
	t.Helper()
	conn := p.conn(t, grpc.WithAuthority("localhost"))
	return kmsapi.NewKeyManagementServiceClient(conn), conn
}

func (p *plugin) waitHealthy(t *testing.T) {
	t.Helper()
	p.waitAccepts(t)
	client := p.client(t)
	var last error
	healthy := parts.Eventually(startBound, func() bool {
		var answer *service.StatusResponse
		if answer, last = client.Status(t.Context()); last == nil && answer.Healthz != "ok" {
			last = fmt.Errorf("healthz: %s", answer.Healthz)
		}
		return last == nil || !p.Alive()
	})
	if !healthy || last != nil {
		t.Fatalf("the plugin was never healthy: %v", last)
	}
}

// waitAccepts waits until the socket accepts, so that the next client connects without a pause.
func (p *plugin) waitAccepts(t *testing.T) {
	t.Helper()
	if !parts.Eventually(startBound, func() bool { return p.accepts() || !p.Alive() }) || !p.Alive() {
		t.Fatal("the socket never accepts")
	}
}

// accepts reports whether a process listens on the socket.
func (p *plugin) accepts() bool {
	conn, err := net.Dial("unix", p.address())
	if err == nil {
		_ = conn.Close()
	}
	return err == nil
}

// requireHealthy requires that the plugin runs and answers ok on a new connection.
func (p *plugin) requireHealthy(t *testing.T) {
	t.Helper()
	if answer, err := p.client(t).Status(t.Context()); err != nil || answer.Healthz != "ok" || !p.Alive() {
		t.Fatalf("the plugin no longer works: %v, %v", answer, err)
	}
}

func newEndpoint(t *testing.T) string {
	return "unix://" + filepath.Join(shortDir(t), "kms.sock")
}

func message(err error) string { return status.Convert(err).Message() }
