package field_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"k8s.io/apiserver/pkg/storage/value/encrypt/envelope/kmsv2"
	"k8s.io/kms/pkg/service"

	"vault-kube-kms.test/parts"
)

// callTimeout is what kube-apiserver allows for a call by default.
const callTimeout = 3 * time.Second

// plugin is a running process of the binary under test. It keeps every error that it answered.
type plugin struct {
	*parts.Process
	endpoint string
	flags    []string
	// health and inside are the addresses of its two HTTP ports.
	health, inside string

	client service.Service
	mu     sync.Mutex
	told   []string
}

// wrapper is the start of a command line that ends by running its arguments.
type wrapper []string

// launch starts a plugin and does not wait for anything. An outage shows in Status at once.
func launch(t *testing.T, flags []string, wrapped ...string) *plugin {
	t.Helper()
	return launchOn(t, "unix://"+filepath.Join(shortDir(t), "kms.sock"), flags, wrapped...)
}

// launchOn is launch for an address of its own.
func launchOn(t *testing.T, endpoint string, flags []string, wrapped ...string) *plugin {
	t.Helper()
	return launchForm(t, endpoint, endpoint, flags, wrapped...)
}

// launchForm is launchOn for an address whose form differs from the client's.
func launchForm(t *testing.T, form, endpoint string, flags []string, wrapped ...string) *plugin {
	t.Helper()
	if !strings.HasPrefix(endpoint, "unix://") {
		endpoint = "unix://" + endpoint
	}
	health, inside := parts.FreePort(), parts.FreePort()
	args := append(wrapped, needed(t, "PROVIDER"), "--listen-address="+form, "--outage-grace=0s",
		fmt.Sprintf("--health-port=%d", health), fmt.Sprintf("--metrics-port=%d", inside))
	process, err := parts.Way{}.Start("plugin", append(args, flags...))
	must(t, err)
	p := &plugin{
		Process: process, endpoint: endpoint, flags: flags,
		health: fmt.Sprintf("http://127.0.0.1:%d", health),
		inside: fmt.Sprintf("http://127.0.0.1:%d", inside),
	}
	p.client = clientOf(t, endpoint)
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

// start launches a plugin and waits until it is healthy.
func start(t *testing.T, flags []string, wrapped ...string) *plugin {
	t.Helper()
	p := launch(t, flags, wrapped...)
	if !p.waitHealthy(t, "at the start", startBound) {
		t.FailNow()
	}
	return p
}

func clientOf(t *testing.T, endpoint string) service.Service {
	t.Helper()
	client, err := kmsv2.NewGRPCService(t.Context(), endpoint, "field", callTimeout)
	must(t, err)
	return client
}

// path is that of its socket file.
func (p *plugin) path() string { return strings.TrimPrefix(p.endpoint, "unix://") }

// note keeps an error for requireNeverTold.
func (p *plugin) note(err error) {
	if err == nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if text := status.Convert(err).Message(); len(p.told) == 0 || p.told[len(p.told)-1] != text {
		p.told = append(p.told, text)
	}
}

// status returns the error of Status, or the reason why it is not ok.
func (p *plugin) status(ctx context.Context) error {
	answer, err := p.client.Status(ctx)
	if err == nil && answer.Healthz != "ok" {
		err = errors.New(answer.Healthz)
	}
	p.note(err)
	return err
}

func (p *plugin) encrypt(ctx context.Context) (plaintext []byte, sealed *service.EncryptResponse, err error) {
	plaintext = make([]byte, 32)
	_, _ = rand.Read(plaintext)
	sealed, err = p.client.Encrypt(ctx, "encrypt", plaintext)
	p.note(err)
	return plaintext, sealed, err
}

func (p *plugin) decrypt(ctx context.Context, sealed *service.EncryptResponse) ([]byte, error) {
	opened, err := p.client.Decrypt(ctx, "decrypt", &service.DecryptRequest{
		Ciphertext: sealed.Ciphertext, KeyID: sealed.KeyID, Annotations: sealed.Annotations,
	})
	p.note(err)
	return opened, err
}

// works returns why Status, Encrypt or Decrypt does not work.
func (p *plugin) works(ctx context.Context) error {
	if err := p.status(ctx); err != nil {
		return fmt.Errorf("Status: %w", err)
	}
	plaintext, sealed, err := p.encrypt(ctx)
	if err != nil {
		return fmt.Errorf("Encrypt: %w", err)
	}
	opened, err := p.decrypt(ctx, sealed)
	if err != nil || !bytes.Equal(opened, plaintext) {
		return fmt.Errorf("Decrypt: %d bytes, %w", len(opened), err)
	}
	return nil
}

// repeatOnTimeout repeats a call that has run out of time on an overloaded machine, a few times.
func repeatOnTimeout(call func() error) (err error) {
	for range 5 {
		watch := parts.StartWatch()
		err = call()
		if status.Code(err) != codes.DeadlineExceeded || !watch.Overloaded() {
			break
		}
	}
	return err
}

// worksDespiteLoad is works on a machine that may be overloaded.
func (p *plugin) worksDespiteLoad(ctx context.Context) error {
	return repeatOnTimeout(func() error { return p.works(ctx) })
}

// waitHealthy fails unless all calls work within a bound, measured from now, and says so.
func (p *plugin) waitHealthy(t *testing.T, since string, bound time.Duration) bool {
	t.Helper()
	begun := parts.StartWatch()
	var last error
	healthy := parts.EventuallyEvery(50*time.Millisecond, bound, func() bool {
		last = p.works(t.Context())
		return last == nil || !p.Alive()
	})
	if !p.Alive() {
		t.Errorf("NOT WELL: it has ended: %s", parts.Tail(p.Printed()))
		return false
	}
	if !healthy || last != nil {
		t.Errorf("NOT WELL %v %s: %v", begun, since, last)
		return false
	}
	t.Logf("well %v %s", begun, since)
	return true
}

// endsOrWorks waits until all calls work or the process has ended, and says whether either came.
func (p *plugin) endsOrWorks(t *testing.T, bound time.Duration) bool {
	t.Helper()
	return parts.EventuallyEvery(50*time.Millisecond, bound, func() bool {
		return !p.Alive() || p.works(t.Context()) == nil
	})
}

// get reads a page of one of its HTTP ports.
func (p *plugin) get(url string) (status int, text string) {
	client := http.Client{Timeout: callTimeout}
	response, err := client.Get(url)
	if err != nil {
		return 0, err.Error()
	}
	defer response.Body.Close()
	var body bytes.Buffer
	_, _ = body.ReadFrom(response.Body)
	return response.StatusCode, body.String()
}

// isReady says whether /readyz answers 200.
func (p *plugin) isReady() bool {
	code, _ := p.get(p.health + "/readyz")
	return code == http.StatusOK
}

// notes reads /statusz, and keeps it for requireNeverTold.
func (p *plugin) notes() string {
	_, text := p.get(p.inside + "/statusz?format=json")
	p.note(errors.New(text))
	return text
}

// checks runs `check` with the flags of the plugin, and keeps what it prints.
func (p *plugin) checks(t *testing.T) string {
	t.Helper()
	printed, _ := check(t, append([]string{"--listen-address=" + p.endpoint}, p.flags...))
	for line := range strings.Lines(printed) {
		p.note(errors.New("check: " + strings.TrimSpace(line)))
	}
	return printed
}

// check returns what `check` prints, and its exit code. It must end.
func check(t *testing.T, flags []string, wrapped ...string) (string, int) {
	t.Helper()
	args := append(wrapped, append([]string{needed(t, "PROVIDER"), "check"}, flags...)...)
	process, err := parts.Way{}.Start("check", args)
	must(t, err)
	// It waits for a login as long as --login-timeout says.
	if !process.EndsWithin(45 * time.Second) {
		process.Kill()
		t.Error("check does not end")
	}
	return process.Printed(), process.ExitCode()
}

// refusedStart runs a plugin that must refuse its flags at once, and returns what it prints.
func refusedStart(t *testing.T, flags []string, wrapped ...string) string {
	t.Helper()
	args := append(wrapped, needed(t, "PROVIDER"), "--health-port=0", "--metrics-port=0",
		"--listen-address="+filepath.Join(shortDir(t), "kms.sock"))
	process, err := parts.Way{}.Start("plugin", append(args, flags...))
	must(t, err)
	t.Cleanup(process.Kill)
	if !process.EndsWithin(startBound) {
		t.Fatalf("it runs: %s", process.Printed())
	}
	if code := process.ExitCode(); code != 64 {
		t.Errorf("it ends with %d: %s", code, process.Printed())
	}
	return process.Printed()
}

// acceptsNewConnections says whether a client can connect to the socket file and gets an answer.
func (p *plugin) acceptsNewConnections(t *testing.T) bool {
	conn, err := net.Dial("unix", p.path())
	if err != nil {
		return false
	}
	_ = conn.Close()
	ctx, cancel := context.WithTimeout(t.Context(), callTimeout)
	defer cancel()
	client, err := kmsv2.NewGRPCService(ctx, p.endpoint, "field", callTimeout)
	if err != nil {
		return false
	}
	_, err = client.Status(ctx)
	return err == nil
}

// apart is a wrapper that runs a program in a mount namespace, after some commands of a shell.
func apart(t *testing.T, commands string) wrapper {
	t.Helper()
	unshare := wrapper{"unshare", "--mount"}
	if err := exec.Command("unshare", "--mount", "true").Run(); err != nil {
		unshare = append(unshare, "--map-root-user")
	}
	return append(unshare, "sh", "-c", "set -e; "+commands+`; exec "$0" "$@"`)
}
