package apiserver_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// laggard stands in front of an OpenBao and can answer with an older state of one key, as a
// replica does that has not caught up.
type laggard struct {
	address, caFile string

	mu       sync.Mutex
	last     []byte
	old      []byte
	replayed int
}

func newLaggard(t *testing.T, n *tenant) *laggard {
	t.Helper()
	certificate, caFile := selfMade(t)
	l := &laggard{caFile: caFile}
	to := &httputil.ReverseProxy{
		Transport: n.bao.http.Transport,
		Rewrite: func(request *httputil.ProxyRequest) {
			request.SetURL(&url.URL{Scheme: "https", Host: n.bao.address})
		},
		ModifyResponse: func(response *http.Response) error {
			if !isKeyRead(response.Request, n.key) || response.StatusCode != http.StatusOK {
				return nil
			}
			body, err := io.ReadAll(response.Body)
			_ = response.Body.Close()
			response.Body = io.NopCloser(bytes.NewReader(body))
			l.mu.Lock()
			defer l.mu.Unlock()
			l.last = body
			return err
		},
	}
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !isKeyRead(r, n.key) || !l.replay(w) {
			to.ServeHTTP(w, r)
		}
	}))
	server.TLS = &tls.Config{Certificates: []tls.Certificate{certificate}}
	server.StartTLS()
	t.Cleanup(server.Close)
	l.address = strings.TrimPrefix(server.URL, "https://")
	return l
}

func isKeyRead(r *http.Request, key string) bool {
	return r.Method == http.MethodGet && r.URL.Path == "/v1/transit/keys/"+key
}

// replay answers with the older state, if that is wanted.
func (l *laggard) replay(w http.ResponseWriter) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.old == nil {
		return false
	}
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write(l.old)
	l.replayed++
	return true
}

// remember is the state of the key that was answered last.
func (l *laggard) remember(t *testing.T) []byte {
	t.Helper()
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.last == nil {
		t.Fatal("nothing was asked yet")
	}
	return l.last
}

// answer sets the older state to answer with, or none.
func (l *laggard) answer(old []byte) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.old = old
}

// replays is how often the older state was answered.
func (l *laggard) replays() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.replayed
}

func (l *laggard) flags(n *tenant) []string {
	return with(n.flagsVia(l.address), "--tls-ca-file="+l.caFile)
}

// selfMade is a certificate for the loopback address and the authority behind it, which must not
// be one and the same.
func selfMade(t *testing.T) (tls.Certificate, string) {
	t.Helper()
	authority := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test authority"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	server := &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: "test server"},
		NotBefore: authority.NotBefore, NotAfter: authority.NotAfter,
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
	}
	authorityKey, serverKey := newKey(t), newKey(t)
	sign := func(what *x509.Certificate, key *ecdsa.PrivateKey) []byte {
		der, err := x509.CreateCertificate(rand.Reader, what, authority, &key.PublicKey, authorityKey)
		if err != nil {
			t.Fatal(err)
		}
		return der
	}
	file := filepath.Join(shortDir(t), "ca.pem")
	block := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: sign(authority, authorityKey)})
	if err := os.WriteFile(file, block, 0o600); err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{sign(server, serverKey)}, PrivateKey: serverKey}, file
}

func newKey(t *testing.T) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}
