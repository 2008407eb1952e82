package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"sync/atomic"
	"syscall"
	"time"
)

// listen opens the port. SIGHUP makes the listener read the certificate again.
func listen(s *settings) (net.Listener, error) {
	if s.CertFile == "" {
		return net.Listen("tcp", s.Address)
	}
	var current atomic.Pointer[tls.Certificate]
	load := func() error {
		pair, err := tls.LoadX509KeyPair(s.CertFile, s.KeyFile)
		if err == nil {
			current.Store(&pair)
		}
		return err
	}
	if err := load(); err != nil {
		return nil, err
	}
	again := make(chan os.Signal, 1)
	signal.Notify(again, syscall.SIGHUP)
	go func() {
		for range again {
			// A pair that cannot be read leaves the former one in use.
			_ = load()
		}
	}()
	return tls.Listen("tcp", s.Address, &tls.Config{
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return current.Load(), nil },
		// The certificate of a client is verified by the method `cert`.
		ClientAuth: tls.RequestClientCert,
		NextProtos: []string{"h2", "http/1.1"},
	})
}

// makeCertificate writes an authority, vault-ca.pem, and a certificate for loopback to `dir`.
func (s *settings) makeCertificate(dir string) error {
	s.CertFile, s.KeyFile = filepath.Join(dir, "vault-cert.pem"), filepath.Join(dir, "vault-key.pem")
	authority := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "Vault of tests"},
		NotBefore: time.Now().Add(-time.Minute), NotAfter: time.Now().AddDate(1, 0, 0),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	own, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	der, err := x509.CreateCertificate(rand.Reader, authority, authority, own.Public(), own)
	if err != nil {
		return err
	}
	// The tests read the authority as soon as it is there, so it is the last file.
	authorityPEM := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	der, err = x509.CreateCertificate(rand.Reader, &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: "localhost"},
		NotBefore: authority.NotBefore, NotAfter: authority.NotAfter,
		DNSNames: []string{"localhost"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1), net.IPv6loopback},
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}, authority, key.Public(), own)
	if err != nil {
		return err
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return err
	}
	certificate := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	secret := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private})
	for path, text := range map[string][]byte{s.CertFile: certificate, s.KeyFile: secret} {
		if err := os.WriteFile(path, text, 0o600); err != nil {
			return err
		}
	}
	draft := filepath.Join(dir, "vault-ca.pem.draft")
	if err := os.WriteFile(draft, authorityPEM, 0o600); err != nil {
		return err
	}
	return os.Rename(draft, filepath.Join(dir, "vault-ca.pem"))
}
