package field_test

import (
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"net"
	"os"
	"testing"
	"time"

	"vault-kube-kms.test/parts"
	"vault-kube-kms.test/suite"
)

// shown has the configuration of a server with a certificate, and the file of the authorities that a client
// trusts.
func shown(t *testing.T, certificate parts.Certificate, err error) (*tls.Config, string) {
	t.Helper()
	must(t, err)
	pair, err := tls.LoadX509KeyPair(certificate.CertFile, certificate.KeyFile)
	must(t, err)
	return &tls.Config{Certificates: []tls.Certificate{pair}}, certificate.CAFile
}

// issued is shown for a certificate of a new authority with other fields.
func issued(t *testing.T, change func(*x509.Certificate)) (*tls.Config, string) {
	t.Helper()
	dir := shortDir(t)
	authority, err := parts.NewAuthority(dir, 365)
	must(t, err)
	certificate, err := authority.IssueAs(dir, change)
	return shown(t, certificate, err)
}

func unchanged(*x509.Certificate) {}

// TestCausesOfTLS expects that the error names the cause of a failed TLS connection and a true remedy, without
// texts of the TLS library.
func TestCausesOfTLS(t *testing.T) {
	t.Parallel()
	for trial, c := range map[string]struct {
		serve       func(t *testing.T) (*tls.Config, string)
		plain       bool
		told, wrong []string
	}{
		"self_signed_server_certificate": {
			serve: func(t *testing.T) (*tls.Config, string) {
				certificate, err := parts.SelfSigned(shortDir(t))
				return shown(t, certificate, err)
			},
			told:  []string{`(?i)\bCA\b|authority`, `(?i)server.?s? certificate|certificate for the server|end-entity`},
			wrong: []string{"give the CA", "check the network"},
		},
		"certificate_with_a_common_name_only": {
			serve: func(t *testing.T) (*tls.Config, string) {
				return issued(t, func(c *x509.Certificate) {
					c.IPAddresses, c.DNSNames, c.Subject = nil, nil, pkix.Name{CommonName: "127.0.0.1"}
				})
			},
			told:  []string{`(?i)alternative name|subjectAltName`},
			wrong: []string{"--tls-sni", "check the network"},
		},
		"certificate_of_another_name": {
			serve: func(t *testing.T) (*tls.Config, string) {
				return issued(t, func(c *x509.Certificate) { c.IPAddresses, c.DNSNames = nil, []string{"other.example.org"} })
			},
			told:  []string{`(?i)\bname`, `--tls-sni`},
			wrong: []string{"check the network", "give the CA"},
		},
		"certificate_that_has_expired": {
			serve: func(t *testing.T) (*tls.Config, string) {
				return issued(t, func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Minute) })
			},
			told:  []string{`(?i)expired`, `(?i)renew`, `(?i)clock`},
			wrong: []string{"check the network", "give the CA"},
		},
		"certificate_of_the_future": {
			serve: func(t *testing.T) (*tls.Config, string) {
				return issued(t, func(c *x509.Certificate) { c.NotBefore = time.Now().Add(24 * time.Hour) })
			},
			told:  []string{`(?i)not.*yet|not valid before|future`, `(?i)clock`},
			wrong: []string{"check the network", "give the CA"},
		},
		"certificate_of_an_unknown_authority": {
			serve: func(t *testing.T) (*tls.Config, string) {
				config, _ := issued(t, unchanged)
				other, err := parts.NewNamedAuthority(shortDir(t), "another authority", 365)
				must(t, err)
				return config, other.File
			},
			told:  []string{`(?i)authority|\bCA\b|issuer`, `--tls-ca-file`},
			wrong: []string{"check the network", "--tls-sni"},
		},
		"certificate_of_an_authority_that_was_made_anew": {
			// This authority has the name of the trusted one, and another key.
			serve: func(t *testing.T) (*tls.Config, string) {
				config, _ := issued(t, unchanged)
				_, former := issued(t, unchanged)
				return config, former
			},
			told:  []string{`(?i)authority|\bCA\b|issuer`, `--tls-ca-file`},
			wrong: []string{"check the network", "--tls-sni"},
		},
		"certificate_without_its_intermediate": {
			serve: withoutIntermediate,
			told:  []string{`(?i)intermediate`},
			wrong: []string{"check the network"},
		},
		"server_wants_client_certificate": {
			serve: func(t *testing.T) (*tls.Config, string) {
				config, ca := issued(t, unchanged)
				config.ClientAuth = tls.RequireAnyClientCert
				return config, ca
			},
			told:  []string{`(?i)client certificate`, `--tls-client-cert-file`},
			wrong: []string{"check the network"},
		},
		"server_wants_client_certificate_tls_1_2": {
			serve: func(t *testing.T) (*tls.Config, string) {
				config, ca := issued(t, unchanged)
				config.ClientAuth, config.MaxVersion = tls.RequireAnyClientCert, tls.VersionTLS12
				return config, ca
			},
			// TLS 1.2 has no alert of its own for this.
			told:  []string{`(?i)client certificate`},
			wrong: []string{"check the network"},
		},
		"server_of_an_old_version": {
			serve: func(t *testing.T) (*tls.Config, string) {
				config, ca := issued(t, unchanged)
				config.MinVersion, config.MaxVersion = tls.VersionTLS10, tls.VersionTLS11
				return config, ca
			},
			told:  []string{`(?i)version`, `TLS 1\.2`},
			wrong: []string{"check the network", "give the CA"},
		},
		"server_of_old_ciphers": {
			serve: func(t *testing.T) (*tls.Config, string) {
				config, ca := issued(t, unchanged)
				config.MaxVersion = tls.VersionTLS12
				config.CipherSuites = []uint16{tls.TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA}
				return config, ca
			},
			told:  []string{`(?i)cipher`},
			wrong: []string{"check the network", "give the CA"},
		},
		"https_to_a_plain_port": {
			serve: func(t *testing.T) (*tls.Config, string) { return issued(t, unchanged) },
			plain: true,
			told:  []string{`(?i)plain|without TLS|no TLS|not speak TLS`, `http://`},
			wrong: []string{"give the CA"},
		},
	} {
		t.Run(trial, func(t *testing.T) {
			t.Parallel()
			n := newTenant(t)
			config, ca := c.serve(t)
			f := newFrontAs(t, n.Bao, suite.Front{TLS: config, Plain: c.plain})
			p := launch(t, append(n.FlagsVia(f.Address), "--tls-ca-file="+ca))
			p.waitTold(t, startBound, c.told...)
			requireTold(t, p.checks(t), c.told...)
			p.requireNeverTold(t, append(c.wrong, "secret ID to the file")...)
		})
	}
}

// withoutIntermediate shows a certificate of an authority that the trusted one has signed, and not
// that authority.
func withoutIntermediate(t *testing.T) (*tls.Config, string) {
	t.Helper()
	root, err := parts.NewAuthority(shortDir(t), 365)
	must(t, err)
	between, err := root.Below(shortDir(t))
	must(t, err)
	certificate, err := between.Issue(shortDir(t))
	config, _ := shown(t, certificate, err)
	return config, root.File
}

// TestHTTPSToAPlainPortOfOpenBao connects with https:// to a plain port of a real server.
func TestHTTPSToAPlainPortOfOpenBao(t *testing.T) {
	t.Parallel()
	b, err := parts.StartPlainOpenBao(parts.Way{}, needed(t, "BAO"), shortDir(t))
	must(t, err)
	t.Cleanup(b.Kill)
	n := newTenant(t)
	p := launch(t, n.FlagsVia(b.Address))
	p.waitTold(t, startBound, `(?i)plain|without TLS|no TLS|not speak TLS`, `http://`)
	requireTold(t, p.checks(t), `http://`)
	p.requireNeverTold(t, "give the CA")
}

// TestPlainHTTPToATLSPortOfOpenBao connects with http:// to a TLS port of a real server. It expects the same
// cause at each try.
func TestPlainHTTPToATLSPortOfOpenBao(t *testing.T) {
	t.Parallel()
	n := newTenant(t)
	flags := append(withoutFlag(n.Flags(), "--vault-address"), "--vault-address=http://"+n.Bao.Address)
	p := launch(t, flags)
	p.waitTold(t, startBound, `https://`, `(?i)plain|TLS`)
	// Wait for two more tries.
	parts.Eventually(5*time.Second, func() bool { return p.status(t.Context()) == nil })
	p.waitTold(t, startBound, `https://`, `(?i)plain|TLS`)
	requireTold(t, p.checks(t), `https://`)
	p.requireNeverTold(t, blames...)
}

func TestIPv6Address(t *testing.T) {
	t.Parallel()
	listener, err := net.Listen("tcp", "[::1]:0")
	if err != nil {
		suite.Skip(t, "THE LOOPBACK INTERFACE HAS NO IPv6")
	}
	n := newTenant(t)
	config, ca := issued(t, func(c *x509.Certificate) { c.IPAddresses, c.DNSNames = []net.IP{net.IPv6loopback}, nil })
	f := newFrontAs(t, n.Bao, suite.Front{TLS: config, Listener: listener})
	p := start(t, append(n.FlagsVia(f.Address), "--tls-ca-file="+ca))
	if printed := p.checks(t); matchesAll(printed, []string{`FAIL`}) {
		t.Errorf("check prints\n%s", printed)
	}
}

// readFile returns the content of a file.
func readFile(t *testing.T, path string) []byte {
	t.Helper()
	text, err := os.ReadFile(path)
	must(t, err)
	return text
}
