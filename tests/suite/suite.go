// Package suite is what the suites share as tests: what they need, and how they fail without it.
package suite

import (
	"crypto/tls"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"strings"
	"testing"

	"vault-kube-kms.test/parts"
)

// Needed is the value of a variable without which a test cannot run. On CI that is a failure.
func Needed(t *testing.T, variable string) string {
	t.Helper()
	if value := os.Getenv(variable); value != "" {
		return value
	}
	text := fmt.Sprintf("SKIPPED: %s IS NOT SET; run cargo xtask test", variable)
	if os.Getenv("CI") == "true" {
		t.Fatal(text)
	}
	fmt.Fprintln(os.Stderr, text)
	t.Skip(text)
	return ""
}

// Must ends a test for which something did not work that is not under test.
func Must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// ShortDir is a folder whose path leaves room for a socket's 107 bytes.
func ShortDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/tmp", "vkk")
	Must(t, err)
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

// Front stands in front of an OpenBao, with a certificate of its own.
type Front struct {
	// Answer answers a request itself, or says that it does not.
	Answer func(w http.ResponseWriter, r *http.Request) bool
	// See is shown each answer of the OpenBao, and may change it.
	See func(*http.Response) error
	// Days is how long its certificate is good for.
	Days int
}

// Serve starts it: where it listens, and whom to trust for it.
func (f Front) Serve(t *testing.T, b *parts.OpenBao) (address, caFile string) {
	t.Helper()
	made, err := parts.NewCertificate(ShortDir(t), f.Days)
	Must(t, err)
	certificate, err := tls.LoadX509KeyPair(made.CertFile, made.KeyFile)
	Must(t, err)
	behind := &httputil.ReverseProxy{
		Transport: b.HTTP.Transport,
		Rewrite: func(request *httputil.ProxyRequest) {
			request.SetURL(&url.URL{Scheme: "https", Host: b.Address})
		},
		ModifyResponse: f.See,
	}
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !f.Answer(w, r) {
			behind.ServeHTTP(w, r)
		}
	}))
	server.TLS = &tls.Config{Certificates: []tls.Certificate{certificate}}
	server.StartTLS()
	t.Cleanup(server.Close)
	return strings.TrimPrefix(server.URL, "https://"), made.CAFile
}
