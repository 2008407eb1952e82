// Package logins_test tests each method of logging in against each fault of a login, on a real server. It
// prints the time until the plugin works again.
package logins_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"fmt"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"k8s.io/apiserver/pkg/storage/value/encrypt/envelope/kmsv2"
	"k8s.io/kms/pkg/service"

	"vault-kube-kms.test/parts"
	"vault-kube-kms.test/suite"
)

// The longest time until the plugin works again.
const (
	// startBound is that of a start with good credentials.
	startBound = 20 * time.Second
	// fileBound is that after a good credential is in its file. Each file is read every two seconds.
	fileBound = 5 * time.Second
	// outageBound is that after an outage of the server.
	outageBound = 30 * time.Second
	// refusalBound is that after the cause of a refusal has ended on the server.
	refusalBound = 65 * time.Second
	// slack is for a round trip and a login.
	slack = 3 * time.Second
)

var (
	must     = suite.Must
	shortDir = suite.ShortDir
	ask      = suite.Ask
)

func TestMain(m *testing.M) { suite.Main(m, 24, shared.End, spire.End) }

// shared is the server of all tests.
var shared = suite.Shared[*parts.OpenBao]{Start: parts.StartDevOpenBao}

// plugin is a running plugin and its client.
type plugin struct {
	*parts.Plugin
	client service.Service
	flags  []string
}

// start starts a plugin with flags and environment variables.
func start(t *testing.T, flags []string, variables ...string) *plugin {
	t.Helper()
	endpoint := "unix://" + filepath.Join(shortDir(t), "kms.sock")
	flags = append([]string{"--outage-grace=0s"}, flags...)
	running, err := parts.StartPlugin(parts.Way{Variables: variables}, "plugin", suite.Needed(t, "PROVIDER"), endpoint, flags...)
	must(t, err)
	client, err := kmsv2.NewGRPCService(t.Context(), endpoint, "logins", 3*time.Second)
	must(t, err)
	p := &plugin{Plugin: running, client: client, flags: append(flags, "--listen-address="+endpoint)}
	t.Cleanup(func() {
		if !p.Stop() {
			t.Error("the plugin had to be killed")
		}
		if t.Failed() {
			t.Logf("the plugin printed:\n%s", parts.Tail(p.Printed()))
		}
	})
	return p
}

// works returns why Status or a round trip fails.
func (p *plugin) works(ctx context.Context) error {
	answer, err := p.client.Status(ctx)
	if err != nil {
		return err
	}
	if answer.Healthz != "ok" {
		return fmt.Errorf("%s", answer.Healthz)
	}
	seed := make([]byte, 32)
	_, _ = rand.Read(seed)
	sealed, err := p.client.Encrypt(ctx, "e", seed)
	if err != nil {
		return err
	}
	opened, err := p.client.Decrypt(ctx, "d", &service.DecryptRequest{
		Ciphertext: sealed.Ciphertext, KeyID: sealed.KeyID, Annotations: sealed.Annotations,
	})
	if err == nil && !bytes.Equal(opened, seed) {
		return fmt.Errorf("Decrypt returned another seed")
	}
	return err
}

// untilWorks waits until the plugin works, and prints how long that took.
func (p *plugin) untilWorks(t *testing.T, what string, bound time.Duration) {
	t.Helper()
	watch := parts.StartWatch()
	var last error
	if !parts.EventuallyEvery(50*time.Millisecond, bound+slack, func() bool {
		last = p.works(t.Context())
		return last == nil
	}) {
		t.Fatalf("%s: not healed after %v: %v", what, watch, last)
	}
	fmt.Printf("HEALED | %s | %v\n", t.Name(), watch)
}

// untilTold waits until Status fails with a text, and checks that no credential is in it.
func (p *plugin) untilTold(t *testing.T, text string) {
	t.Helper()
	var last error
	if !parts.EventuallyEvery(50*time.Millisecond, startBound, func() bool {
		last = p.works(t.Context())
		return last != nil && strings.Contains(last.Error(), text)
	}) {
		t.Fatalf("Status does not tell %q: %v", text, last)
	}
}

// counted is the value of a counter.
func (p *plugin) counted(t *testing.T, name string, labels ...string) float64 {
	t.Helper()
	metrics, err := p.Metrics()
	must(t, err)
	value, _ := metrics.Sum(name, labels...)
	return value
}

// check runs the command check with the flags of the plugin.
func (p *plugin) check(t *testing.T) string {
	t.Helper()
	process, err := parts.Way{}.Start("check", append([]string{suite.Needed(t, "PROVIDER"), "check"}, p.flags...))
	must(t, err)
	if !process.EndsWithin(45 * time.Second) {
		process.Kill()
		t.Error("check does not end")
	}
	return process.Printed()
}

// statusz reads the status page as text.
func (p *plugin) statusz(t *testing.T) string {
	t.Helper()
	response, err := http.Get("http://" + p.MetricsAddress() + "/statusz?format=json")
	must(t, err)
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	must(t, err)
	return string(text)
}

// door forwards connections to a server once it is open.
type door struct{ address string }

// open starts to forward.
func (d door) open(t *testing.T, to string) {
	t.Helper()
	listener, err := net.Listen("tcp", d.address)
	must(t, err)
	t.Cleanup(func() { _ = listener.Close() })
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go forward(conn, to)
		}
	}()
}

func forward(from net.Conn, address string) {
	defer from.Close()
	to, err := net.Dial("tcp", address)
	if err != nil {
		return
	}
	defer to.Close()
	go func() { _, _ = io.Copy(to, from) }()
	_, _ = io.Copy(from, to)
}
