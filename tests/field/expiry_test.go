package field_test

import (
	"crypto/x509"
	"encoding/pem"
	"strings"
	"testing"
	"time"

	"vault-kube-kms.test/parts"
	"vault-kube-kms.test/suite"
)

// expiry returns the expiry gauge with this label, in seconds since the epoch, or 0 when it is absent.
func expiry(p *plugin, what string) int64 {
	_, text := p.get(p.inside + "/metrics")
	at, _ := parts.Metrics(text).Sum("vault_kube_kms_expiry_timestamp_seconds", `what="`+what+`"`)
	return int64(at)
}

// endOf returns the time at which the first certificate of a file expires.
func endOf(t *testing.T, path string) int64 {
	t.Helper()
	block, _ := pem.Decode(readFile(t, path))
	certificate, err := x509.ParseCertificate(block.Bytes)
	must(t, err)
	return certificate.NotAfter.Unix()
}

// TestExpiries expects a gauge for each thing that an operator must renew, and one warning when less than a week
// is left.
func TestExpiries(t *testing.T) {
	t.Parallel()
	n := newTenant(t)
	const day = 24 * time.Hour
	authority, err := parts.NewAuthority(shortDir(t), 300)
	must(t, err)
	shortLived, err := authority.IssueAs(shortDir(t), func(c *x509.Certificate) { c.NotAfter = time.Now().Add(3 * day) })
	config, ca := shown(t, shortLived, err)
	f := newFrontAs(t, n.Bao, suite.Front{TLS: config})

	must(t, n.MakeRole(map[string]any{"secret_id_ttl": "24h"}))
	before := time.Now().Add(day).Unix()
	token, err := n.Bao.Wrap("POST", rolePath(n)+"/secret-id", nil)
	must(t, err)
	after := time.Now().Add(day).Unix()
	must(t, n.WriteSecretID(token))
	p := start(t, append(n.FlagsVia(f.Address), "--tls-ca-file="+ca, "--approle-secret-id-wrapped"))

	// The keeper rounds some of these times to seconds.
	if at := expiry(p, "secret-id"); at < before-1 || at > after+1 {
		t.Errorf("the secret ID expires at %d, and not from %d to %d", at, before, after)
	}
	for what, file := range map[string]string{"authorities": ca, "server-certificate": shortLived.CertFile} {
		if at, expected := expiry(p, what), endOf(t, file); at != expected {
			t.Errorf("%s: it expires at %d, and not at %d", what, at, expected)
		}
	}

	// The file gets a second authority, which expires earlier.
	other, err := parts.NewNamedAuthority(shortDir(t), "another authority", 100)
	must(t, err)
	replace(t, ca, append(readFile(t, ca), readFile(t, other.File)...))
	expected := endOf(t, other.File)
	if !parts.Eventually(fileBound+slack, func() bool { return expiry(p, "authorities") == expected }) {
		t.Errorf("the authorities expire at %d, and not at %d", expiry(p, "authorities"), expected)
	}
	if err := p.works(t.Context()); err != nil {
		t.Errorf("with the new bundle: %v", err)
	}

	for what, warnings := range map[string]int{"secret-id": 1, "server-certificate": 1, "authorities": 0} {
		count := 0
		for line := range strings.Lines(p.Printed()) {
			if strings.Contains(line, "expires in less than 7 days") && strings.Contains(line, `"what":"`+what+`"`) {
				count++
			}
		}
		if count != warnings {
			t.Errorf("%d warnings about %s, and not %d", count, what, warnings)
		}
	}
}
