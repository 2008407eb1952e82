// Package suite has what the suites share: the programs that they need, how they fail without them, and the
// front.
package suite

import (
	"crypto/tls"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"sync/atomic"
	"testing"

	"vault-kube-kms.test/parts"
)

// Needed returns the value of a variable. It skips the test when the variable is not set. On CI the test fails
// instead.
func Needed(t *testing.T, variable string) string {
	t.Helper()
	if value := os.Getenv(variable); value != "" {
		return value
	}
	Skip(t, variable+" IS NOT SET; run cargo xtask test")
	return ""
}

// Skip skips a test because this machine does not have what it needs, and tells that on standard error. On CI the
// test fails instead.
func Skip(t *testing.T, missing string) {
	t.Helper()
	text := "SKIPPED: " + missing
	if os.Getenv("CI") == "true" {
		t.Fatal(text)
	}
	fmt.Fprintln(os.Stderr, text)
	t.Skip(text)
}

// Server returns the program of the server that the tests run on: OpenBao's, or KEEPER_SERVER, which takes the same
// arguments.
func Server(t *testing.T) string {
	t.Helper()
	if program := os.Getenv("KEEPER_SERVER"); program != "" {
		return program
	}
	return Needed(t, "BAO")
}

// OnVault reports whether the tests run on HashiCorp Vault.
func OnVault() bool { return os.Getenv("KEEPER_SERVER") != "" }

// NeedsOpenBao skips a test of a feature of OpenBao if the tests run on another server.
func NeedsOpenBao(t *testing.T, feature string) {
	t.Helper()
	if OnVault() {
		t.Skip("only OpenBao has " + feature)
	}
}

// Long skips a test unless cargo xtask test runs with --long.
func Long(t *testing.T) {
	t.Helper()
	if os.Getenv("LONG") == "" {
		t.Skip("it takes many minutes: cargo xtask test --long")
	}
}

// Must ends a test when a step fails that is not under test.
func Must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// ShortDir returns a folder with a short path: the path of a socket has at most 107 bytes.
func ShortDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/tmp", "vkk")
	Must(t, err)
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

// LocalFlags makes a key file, and returns the flags of a plugin that needs no server.
func LocalFlags(t *testing.T) []string {
	t.Helper()
	file := "--local-key-file=" + ShortDir(t) + "/key.json"
	if out, err := parts.Command(Needed(t, "PROVIDER"), "local", "init", file).CombinedOutput(); err != nil {
		t.Fatalf("local init: %v: %s", err, out)
	}
	return []string{"--keeper=local", file}
}

// Front is a proxy in front of OpenBao, with its own certificate.
type Front struct {
	// Answer answers a request itself, or returns false.
	Answer func(w http.ResponseWriter, r *http.Request) bool
	// See gets each answer of OpenBao, and may change it.
	See func(*http.Response) error
	// Days is the number of days for which its certificate is valid.
	Days int
	// Listener accepts its connections. By default it is on a free port of 127.0.0.1.
	Listener net.Listener
	// TLS replaces its own certificate.
	TLS *tls.Config
	// Plain makes it serve HTTP without TLS.
	Plain bool
}

// Served is a running Front.
type Served struct {
	// Address is its host and port. CAFile has the authority of its certificate.
	Address, CAFile string

	server      *httptest.Server
	certificate atomic.Pointer[tls.Certificate]
	days        int
}

// Serve starts it.
func (f Front) Serve(t *testing.T, b *parts.OpenBao) *Served {
	t.Helper()
	s := &Served{days: f.Days}
	if s.days == 0 {
		s.days = 365
	}
	s.Renew(t)
	behind := &httputil.ReverseProxy{
		Transport: b.HTTP.Transport,
		Rewrite: func(request *httputil.ProxyRequest) {
			request.SetURL(&url.URL{Scheme: "https", Host: b.Address})
		},
		ModifyResponse: f.See,
	}
	listener := f.listen(t, s)
	s.server = httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if f.Answer == nil || !f.Answer(w, r) {
			behind.ServeHTTP(w, r)
		}
	}))
	_ = s.server.Listener.Close()
	s.server.Listener = listener
	s.server.Start()
	t.Cleanup(s.server.Close)
	s.Address = listener.Addr().String()
	return s
}

func (f Front) listen(t *testing.T, s *Served) net.Listener {
	t.Helper()
	listener, err := f.Listener, error(nil)
	if listener == nil {
		listener, err = net.Listen("tcp", "127.0.0.1:0")
	}
	Must(t, err)
	config := f.TLS
	if config == nil {
		config = &tls.Config{GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
			return s.certificate.Load(), nil
		}}
	}
	if f.Plain {
		return listener
	}
	// httptest would use its own certificate.
	return tls.NewListener(listener, config)
}

// Renew gives it a new certificate of a new authority, and ends all connections. CAFile changes.
func (s *Served) Renew(t *testing.T) {
	t.Helper()
	made, err := parts.NewCertificate(ShortDir(t), s.days)
	Must(t, err)
	certificate, err := tls.LoadX509KeyPair(made.CertFile, made.KeyFile)
	Must(t, err)
	s.CAFile = made.CAFile
	s.certificate.Store(&certificate)
	if s.server != nil {
		s.server.CloseClientConnections()
	}
}
