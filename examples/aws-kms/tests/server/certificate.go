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
	"time"
)

// certificate makes a certificate authority and a server certificate for localhost. It returns the
// server certificate, and the certificate of the authority in PEM form.
func certificate() (tls.Certificate, []byte) {
	issue := func(template, issuer *x509.Certificate, public any, key *ecdsa.PrivateKey) *x509.Certificate {
		template.NotBefore, template.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(24*time.Hour)
		der, err := x509.CreateCertificate(rand.Reader, template, issuer, public, key)
		must(err)
		made, err := x509.ParseCertificate(der)
		must(err)
		return made
	}
	key := func() *ecdsa.PrivateKey {
		made, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		must(err)
		return made
	}
	signer, own := key(), key()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "authority"}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	authority := issue(template, template, signer.Public(), signer)
	leaf := issue(&x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: "localhost"}, DNSNames: []string{"localhost"},
	}, authority, own.Public(), signer)
	text := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: authority.Raw})
	return tls.Certificate{Certificate: [][]byte{leaf.Raw}, PrivateKey: own}, text
}
