package parts

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"time"
)

// Certificate is a server's certificate for the loopback interface, with its authority. The authority has another
// certificate, because some clients refuse a self-signed server certificate.
type Certificate struct {
	// CAFile has the authority. CertFile and KeyFile are the server's.
	CAFile, CertFile, KeyFile string
}

// Authority issues certificates.
type Authority struct {
	// File has the certificate of the authority.
	File string

	certificate *x509.Certificate
	key         *ecdsa.PrivateKey
}

// NewAuthority makes an authority in a folder. The authority and its certificates are valid for this number of
// days.
func NewAuthority(dir string, days int) (*Authority, error) {
	return NewNamedAuthority(dir, "test authority", days)
}

// NewNamedAuthority is NewAuthority with another name.
func NewNamedAuthority(dir, name string, days int) (*Authority, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	a := &Authority{File: filepath.Join(dir, "ca.pem"), key: key, certificate: &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().AddDate(0, 0, days),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}}
	return a, sign(a.File, a.certificate, a.certificate, &key.PublicKey, key)
}

// Below makes an intermediate authority in a folder, signed by this one.
func (a *Authority) Below(dir string) (*Authority, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	below := &Authority{File: filepath.Join(dir, "ca.pem"), key: key, certificate: &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: "test authority below"},
		NotBefore: a.certificate.NotBefore, NotAfter: a.certificate.NotAfter,
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}}
	return below, sign(below.File, below.certificate, a.certificate, &key.PublicKey, a.key)
}

// Issue makes a certificate in a folder, and replaces an existing one.
func (a *Authority) Issue(dir string) (Certificate, error) {
	return a.IssueAs(dir, func(*x509.Certificate) {})
}

// IssueAs is Issue for a certificate whose fields `change` sets.
func (a *Authority) IssueAs(dir string, change func(*x509.Certificate)) (Certificate, error) {
	server := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: "test server"},
		NotBefore: a.certificate.NotBefore, NotAfter: a.certificate.NotAfter,
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, DNSNames: []string{"localhost"},
	}
	change(server)
	serverKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return Certificate{}, err
	}
	made := Certificate{
		CAFile:   a.File,
		CertFile: filepath.Join(dir, "server.pem"),
		KeyFile:  filepath.Join(dir, "server-key.pem"),
	}
	key, err := x509.MarshalPKCS8PrivateKey(serverKey)
	return made, errors.Join(err,
		sign(made.CertFile, server, a.certificate, &serverKey.PublicKey, a.key),
		writePEM(made.KeyFile, "PRIVATE KEY", key),
	)
}

// NewCertificate makes an authority and one of its certificates in a folder. Both are valid for this number of
// days.
func NewCertificate(dir string, days int) (Certificate, error) {
	authority, err := NewAuthority(dir, days)
	if err != nil {
		return Certificate{}, err
	}
	return authority.Issue(dir)
}

// SelfSigned makes a self-signed certificate of a server that is its own authority, as `openssl req -x509` does.
func SelfSigned(dir string) (Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return Certificate{}, err
	}
	server := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "localhost"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().AddDate(0, 0, 365),
		IsCA: true, BasicConstraintsValid: true,
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, DNSNames: []string{"localhost"},
	}
	made := Certificate{CertFile: filepath.Join(dir, "server.pem"), KeyFile: filepath.Join(dir, "server-key.pem")}
	made.CAFile = made.CertFile
	der, err := x509.MarshalPKCS8PrivateKey(key)
	return made, errors.Join(err,
		sign(made.CertFile, server, server, &key.PublicKey, key),
		writePEM(made.KeyFile, "PRIVATE KEY", der),
	)
}

func sign(file string, what, by *x509.Certificate, key *ecdsa.PublicKey, signer *ecdsa.PrivateKey) error {
	der, err := x509.CreateCertificate(rand.Reader, what, by, key, signer)
	if err != nil {
		return err
	}
	return writePEM(file, "CERTIFICATE", der)
}

func writePEM(file, kind string, der []byte) error {
	return os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600)
}

// trusting returns a client that trusts the authority in a file and keeps connections.
func trusting(caFile string) (*http.Client, error) {
	text, err := os.ReadFile(caFile)
	if err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(text) {
		return nil, errors.New("no certificate in " + caFile)
	}
	return &http.Client{
		Timeout: 60 * time.Second,
		Transport: &http.Transport{
			TLSClientConfig:     &tls.Config{RootCAs: roots},
			ForceAttemptHTTP2:   true,
			MaxIdleConnsPerHost: 64,
		},
	}, nil
}
