package field_test

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"math/big"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"vault-kube-kms.test/parts"
	"vault-kube-kms.test/suite"
)

// doorkeeper is a front that wants client certificates, and keeps the serial number of the last one.
type doorkeeper struct {
	*front
	mu   sync.Mutex
	last *big.Int
}

// newDoorkeeper wants certificates of an authority.
func newDoorkeeper(t *testing.T, b *parts.OpenBao, clients *parts.Authority) *doorkeeper {
	t.Helper()
	config, ca := issued(t, unchanged)
	config.ClientAuth, config.ClientCAs = tls.RequireAndVerifyClientCert, x509.NewCertPool()
	config.ClientCAs.AppendCertsFromPEM(readFile(t, clients.File))
	d := &doorkeeper{}
	d.front = newFrontAs(t, b, suite.Front{TLS: config, Answer: func(_ http.ResponseWriter, r *http.Request) bool {
		d.mu.Lock()
		defer d.mu.Unlock()
		d.last = r.TLS.PeerCertificates[0].SerialNumber
		return false
	}})
	d.CAFile = ca
	return d
}

// met says whether the last request came with a certificate.
func (d *doorkeeper) met(c clientPair) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.last != nil && d.last.Cmp(c.serial) == 0
}

// clientPair is a client certificate and its key, in PEM.
type clientPair struct {
	certificate, key []byte
	serial           *big.Int
	end              int64
}

func newClientPair(t *testing.T, by *parts.Authority, life time.Duration) clientPair {
	t.Helper()
	var pair clientPair
	made, err := by.IssueAs(shortDir(t), func(c *x509.Certificate) {
		c.ExtKeyUsage, c.NotAfter = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}, time.Now().Add(life)
		pair.serial = c.SerialNumber
	})
	must(t, err)
	pair.certificate, pair.key = readFile(t, made.CertFile), readFile(t, made.KeyFile)
	pair.end = endOf(t, made.CertFile)
	return pair
}

func newClients(t *testing.T) *parts.Authority {
	t.Helper()
	authority, err := parts.NewNamedAuthority(shortDir(t), "authority of clients", 365)
	must(t, err)
	return authority
}

// writeInPlace keeps the file that is there.
func writeInPlace(t *testing.T, path string, text []byte) {
	t.Helper()
	must(t, os.WriteFile(path, text, 0o600))
}

const week = 7 * 24 * time.Hour

// A pair is replaced while calls run: none fails, and the next connections present the new one. While
// only one of two files is new, the former pair is used.
func TestTheClientCertificateIsReplaced(t *testing.T) {
	t.Parallel()
	for way, put := range map[string]func(t *testing.T, path string, text []byte){
		"rename":             replace,
		"truncate_and_write": writeInPlace,
	} {
		t.Run(way, func(t *testing.T) {
			t.Parallel()
			n, clients := newTenant(t), newClients(t)
			d := newDoorkeeper(t, n.Bao, clients)
			dir := shortDir(t)
			certificate, key := filepath.Join(dir, "tls.crt"), filepath.Join(dir, "tls.key")
			first, second := newClientPair(t, clients, 30*week), newClientPair(t, clients, 40*week)
			put(t, certificate, first.certificate)
			put(t, key, first.key)
			p := start(t, d.flags(n, "--tls-client-cert-file="+certificate, "--tls-client-key-file="+key))
			if !d.met(first) {
				t.Error("the first certificate was not presented")
			}
			put(t, certificate, second.certificate)
			told := func() bool { return strings.Contains(p.Printed(), "does not fit the first certificate") }
			p.worksUntil(t, "while the key is missing", told)
			if !d.met(first) {
				t.Error("the first pair is not used any more")
			}
			put(t, key, second.key)
			p.worksUntil(t, "after both files were replaced", func() bool { return d.met(second) })
			if at := expiry(p, "client-certificate"); at != second.end {
				t.Errorf("the client certificate expires at %d, and not at %d", at, second.end)
			}
		})
	}
}

// The kubelet replaces all files of a Secret at once, by exchanging a link.
func TestTheClientCertificateOfASecretVolumeIsReplaced(t *testing.T) {
	t.Parallel()
	n, clients := newTenant(t), newClients(t)
	d := newDoorkeeper(t, n.Bao, clients)
	dir := shortDir(t)
	at := func(name ...string) string { return filepath.Join(append([]string{dir}, name...)...) }
	publish := func(version string, pair clientPair) {
		must(t, os.Mkdir(at(version), 0o700))
		must(t, os.WriteFile(at(version, "tls.crt"), pair.certificate, 0o600))
		must(t, os.WriteFile(at(version, "tls.key"), pair.key, 0o600))
		must(t, os.Symlink(version, at("..data_tmp")))
		must(t, os.Rename(at("..data_tmp"), at("..data")))
	}
	first, second := newClientPair(t, clients, 30*week), newClientPair(t, clients, 40*week)
	publish("..1", first)
	for _, name := range []string{"tls.crt", "tls.key"} {
		must(t, os.Symlink(filepath.Join("..data", name), at(name)))
	}
	p := start(t, d.flags(n, "--tls-client-cert-file="+at("tls.crt"), "--tls-client-key-file="+at("tls.key")))
	publish("..2", second)
	must(t, os.RemoveAll(at("..1")))
	p.worksUntil(t, "after the link was exchanged", func() bool { return d.met(second) })
}

// worksUntil fails unless every call works until a condition holds, and it holds in time.
func (p *plugin) worksUntil(t *testing.T, when string, holds func() bool) {
	t.Helper()
	var failed error
	if !parts.EventuallyEvery(50*time.Millisecond, fileBound+slack, func() bool {
		failed = p.worksDespiteLoad(t.Context())
		return failed != nil || holds()
	}) {
		t.Errorf("%s: NOT TAKEN UP", when)
	}
	if failed != nil {
		t.Errorf("%s: %v", when, failed)
	}
}

// The files are there a moment later: the socket serves meanwhile, and Status names the flag. The
// chain and the key may be in one file.
func TestTheClientCertificateComesLater(t *testing.T) {
	t.Parallel()
	n, clients := newTenant(t), newClients(t)
	d := newDoorkeeper(t, n.Bao, clients)
	file := filepath.Join(shortDir(t), "client.pem")
	p := launch(t, d.flags(n, "--tls-client-cert-file="+file))
	p.waitTold(t, startBound, `tls-client-cert-file`, file)
	if !p.Alive() {
		t.Fatalf("it has ended: %s", p.Printed())
	}
	requireTold(t, p.checks(t), `tls-client-cert-file`, file)
	pair := newClientPair(t, clients, 30*week)
	replace(t, file, append(bytes.Clone(pair.key), pair.certificate...))
	p.waitHealthy(t, "after the file is there", fileBound+slack)
}

// The pair is lost or spoilt while the process runs: what was last read counts, and the next good
// pair is taken up.
func TestTheClientCertificateIsSpoiltWhileRunning(t *testing.T) {
	t.Parallel()
	n, clients := newTenant(t), newClients(t)
	d := newDoorkeeper(t, n.Bao, clients)
	file := filepath.Join(shortDir(t), "client.pem")
	both := func(pair clientPair) []byte { return append(bytes.Clone(pair.certificate), pair.key...) }
	first, second := newClientPair(t, clients, 30*week), newClientPair(t, clients, 40*week)
	replace(t, file, both(first))
	p := start(t, d.flags(n, "--tls-client-cert-file="+file))
	must(t, os.Remove(file))
	told := func(text string) func() bool {
		return func() bool { return strings.Contains(p.Printed(), text) }
	}
	p.worksUntil(t, "without the file", told("client.pem cannot be read"))
	replace(t, file, []byte("hello\n"))
	p.worksUntil(t, "with another file", told("client.pem holds no certificate"))
	replace(t, file, both(second))
	p.worksUntil(t, "after a good file took its place", func() bool { return d.met(second) })
	requireNone(t, []string{p.Printed()}, "PRIVATE KEY")
}

// What is not a pair is refused at the start: each error names the flag, the file and the remedy.
func TestAFileWithoutAClientCertificateIsRefused(t *testing.T) {
	t.Parallel()
	clients := newClients(t)
	one, other := newClientPair(t, clients, 30*week), newClientPair(t, clients, 30*week)
	for name, c := range map[string]struct {
		certificate, key []byte
		told             []string
	}{
		"empty":                    {nil, nil, []string{`tls-client-cert-file.*tls\.crt holds no certificate`, `tls-client-key-file.*tls\.key holds no private key`}},
		"halves_that_do_not_fit":   {one.certificate, other.key, []string{`tls-client-key-file.*tls\.key.*does not fit`}},
		"exchanged":                {one.key, one.certificate, []string{`tls-client-cert-file.*holds no certificate`, `tls-client-key-file.*holds no private key`}},
		"certificate_without_body": {[]byte("-----BEGIN CERTIFICATE-----\n"), one.key, []string{`tls-client-cert-file.*certificate 1`}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			n := newTenant(t)
			dir := shortDir(t)
			certificate, key := filepath.Join(dir, "tls.crt"), filepath.Join(dir, "tls.key")
			must(t, os.WriteFile(certificate, c.certificate, 0o600))
			must(t, os.WriteFile(key, c.key, 0o600))
			flags := append(n.Flags(), "--tls-client-cert-file="+certificate, "--tls-client-key-file="+key)
			refused := refusedStart(t, flags)
			requireTold(t, refused, c.told...)
			requireNone(t, []string{refused}, debugTexts...)
			printed, code := check(t, flags)
			if requireTold(t, printed, c.told...); code != 2 {
				t.Errorf("check exits with %d: %s", code, printed)
			}
		})
	}
}

// A certificate that ends soon is a warning of `check` and of the log, and one that has ended is
// named together with what the server says about it.
func TestTheClientCertificateEnds(t *testing.T) {
	t.Parallel()
	n, clients := newTenant(t), newClients(t)
	d := newDoorkeeper(t, n.Bao, clients)
	file := filepath.Join(shortDir(t), "client.pem")
	write := func(life time.Duration) clientPair {
		pair := newClientPair(t, clients, life)
		replace(t, file, append(bytes.Clone(pair.certificate), pair.key...))
		return pair
	}
	soon := write(3*24*time.Hour + time.Minute)
	p := start(t, d.flags(n, "--tls-client-cert-file="+file))
	if at := expiry(p, "client-certificate"); at != soon.end {
		t.Errorf("it expires at %d, and not at %d", at, soon.end)
	}
	requireTold(t, p.Printed(), `expires in less than 7 days.*"what":"client-certificate"`)
	must(t, os.Chmod(file, 0o640))
	requireTold(t, p.checks(t), `WARN.*connection.*--tls-client-cert-file expires in 3 days`,
		`WARN.*files.*--tls-client-cert-file: group or others can read`)
	write(-time.Minute)
	p.waitTold(t, fileBound+slack, `--tls-client-cert-file`, `has expired`, `clocks`)
	requireTold(t, p.checks(t), `FAIL.*connection.*--tls-client-cert-file has expired`)
	write(30 * week)
	p.waitHealthy(t, "after a new certificate", fileBound+slack)
}
