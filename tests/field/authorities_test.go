package field_test

import (
	"bytes"
	"encoding/pem"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"vault-kube-kms.test/parts"
)

// bundled starts a plugin with its own file of authorities.
func bundled(t *testing.T, text func(pem []byte) []byte) (p *plugin, f *front, bundle string) {
	t.Helper()
	n := newTenant(t)
	f = newFront(t, n.Bao)
	bundle = filepath.Join(shortDir(t), "ca.pem")
	if text != nil {
		must(t, os.WriteFile(bundle, text(readFile(t, f.CAFile)), 0o600))
	}
	return launch(t, append(n.FlagsVia(f.Address), "--tls-ca-file="+bundle)), f, bundle
}

func asItIs(pem []byte) []byte { return pem }

const bom = "\ufeff"

// TestCABundleInOtherDress expects that bundles as editors, portals and scripts write them are read at the start
// and after a change.
func TestCABundleInOtherDress(t *testing.T) {
	t.Parallel()
	crlf := func(pem []byte) []byte { return bytes.ReplaceAll(pem, []byte("\n"), []byte("\r\n")) }
	before := func(text string) func([]byte) []byte {
		return func(pem []byte) []byte { return append([]byte(text), pem...) }
	}
	for name, dress := range map[string]func(pem []byte) []byte{
		"as_it_is":             asItIs,
		"crlf":                 crlf,
		"bom":                  before(bom),
		"bom_crlf":             func(pem []byte) []byte { return crlf(before(bom)(pem)) },
		"bom_twice":            func(pem []byte) []byte { return before(bom)(append(pem, before(bom)(pem)...)) },
		"no_newline_at_end":    bytes.TrimSpace,
		"blank_lines":          before("\n\r\n \t\n"),
		"comment_in_utf_8":     before("# Autorité de São Paulo, 東京\n"),
		"comment_in_latin_1":   before("# Autorit\xe9 de S\xe3o Paulo\n"),
		"comment_with_a_nul":   before("# a\x00b\n"),
		"text_of_openssl_x509": before("Certificate:\n    Data:\n        Version: 3 (0x2)\n"),
		"twice":                func(pem []byte) []byte { return append(pem, pem...) },
		"beside_a_key":         before("-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEIAAAAAAAAAAAAAAAAAAAAAAA\n-----END PRIVATE KEY-----\n"),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p, f, bundle := bundled(t, dress)
			if !p.waitHealthy(t, "at the start", startBound) {
				return
			}
			f.Renew(t)
			replace(t, bundle, dress(readFile(t, f.CAFile)))
			p.waitHealthy(t, "after the authority and the bundle were replaced", fileBound+slack)
		})
	}
}

// TestAFileWithoutCertificatesIsRefused expects that the start refuses a file without certificates. The error names the flag,
// the file and the right form.
func TestAFileWithoutCertificatesIsRefused(t *testing.T) {
	t.Parallel()
	labelled := func(label string) func([]byte) []byte {
		return func(text []byte) []byte {
			block, _ := pem.Decode(text)
			return pem.EncodeToMemory(&pem.Block{Type: label, Bytes: block.Bytes})
		}
	}
	for name, spoil := range map[string]func(text []byte) []byte{
		"empty": func([]byte) []byte { return nil },
		"der": func(text []byte) []byte {
			block, _ := pem.Decode(text)
			return block.Bytes
		},
		"label_of_a_key":     labelled("PRIVATE KEY"),
		"label_of_a_request": labelled("CERTIFICATE REQUEST"),
		"junk":               func([]byte) []byte { return []byte("hello\n") },
		"one_bad_certificate": func([]byte) []byte {
			return []byte("-----BEGIN CERTIFICATE-----\nbm9wZQ==\n-----END CERTIFICATE-----\n")
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			n := newTenant(t)
			bundle := filepath.Join(shortDir(t), "ca.pem")
			must(t, os.WriteFile(bundle, spoil(readFile(t, n.Bao.CAFile)), 0o600))
			flags := append(n.Flags(), "--tls-ca-file="+bundle)
			refused := refusedStart(t, flags)
			requireTold(t, refused, `tls-ca-file`, bundle, `(?i)certificate`)
			requireNone(t, []string{refused}, debugTexts...)
			printed, code := check(t, flags)
			if requireTold(t, printed, `tls-ca-file`, bundle); code != 2 {
				t.Errorf("check exits with %d: %s", code, printed)
			}
		})
	}
}

// TestCABundleWithOneBadCertificate expects a warning that names the file, if one of two certificates cannot be
// read.
func TestCABundleWithOneBadCertificate(t *testing.T) {
	t.Parallel()
	for name, bad := range map[string]string{
		"not_a_certificate": "-----BEGIN CERTIFICATE-----\nbm9wZQ==\n-----END CERTIFICATE-----\n",
		"not_base64":        "-----BEGIN CERTIFICATE-----\n!!!!\n-----END CERTIFICATE-----\n",
		"empty":             "-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n",
	} {
		for place, join := range map[string]func(good []byte) []byte{
			"before": func(good []byte) []byte { return append([]byte(bad), good...) },
			"behind": func(good []byte) []byte { return append(bytes.Clone(good), bad...) },
		} {
			t.Run(name+"_"+place, func(t *testing.T) {
				t.Parallel()
				p, f, bundle := bundled(t, join)
				if !p.waitHealthy(t, "at the start", startBound) {
					return
				}
				warned := func(line string) bool {
					return strings.Contains(line, `"WARN"`) && strings.Contains(line, bundle)
				}
				if !anyLine(p.Stdout.String(), warned) {
					t.Errorf("no warning names %s", bundle)
				}
				f.Renew(t)
				replace(t, bundle, join(readFile(t, f.CAFile)))
				p.waitHealthy(t, "after the authority and the bundle were replaced", fileBound+slack)
			})
		}
	}
}

func anyLine(text string, holds func(line string) bool) bool {
	for line := range strings.Lines(text) {
		if holds(line) {
			return true
		}
	}
	return false
}

// TestCAFileComesLater expects that the socket serves while the file does not exist yet, and that Status names
// the flag.
func TestCAFileComesLater(t *testing.T) {
	t.Parallel()
	p, f, bundle := bundled(t, nil)
	p.waitTold(t, startBound, `tls-ca-file`, bundle)
	if !p.Alive() {
		t.Fatalf("it has ended: %s", p.Printed())
	}
	requireTold(t, p.checks(t), `tls-ca-file`, bundle)
	replace(t, bundle, readFile(t, f.CAFile))
	p.waitHealthy(t, "after the file is there", fileBound+slack)
}

// TestOddFilesAsCABundle starts with a bundle that is not a plain file. It expects that the process ends with
// exit code 64 and names the file, or that Status names it and a plain file ends the fault.
func TestOddFilesAsCABundle(t *testing.T) {
	t.Parallel()
	for what, create := range oddFiles {
		t.Run("ca_"+what, func(t *testing.T) {
			t.Parallel()
			n := newTenant(t)
			bundle := filepath.Join(shortDir(t), "ca.pem")
			must(t, create(bundle))
			flags := append(n.Flags(), "--tls-ca-file="+bundle)
			p := launch(t, flags, littleMemory...)
			named := func(text string) bool { return matchesAll(text, []string{`tls-ca-file`, bundle}) }
			if !parts.Eventually(startBound, func() bool {
				err := p.status(t.Context())
				return !p.Alive() || err != nil && named(err.Error())
			}) {
				t.Fatalf("NOT NAMED: %s", p.Printed())
			}
			printed, code := check(t, flags, littleMemory...)
			if code != 2 || !named(printed) {
				t.Errorf("check exits with %d: %s", code, printed)
			}
			if !p.Alive() {
				if code := p.ExitCode(); code != 64 || !named(p.Printed()) {
					t.Errorf("it ends with %d: %s", code, p.Printed())
				}
				return
			}
			replace(t, bundle, readFile(t, n.Bao.CAFile))
			p.waitHealthy(t, "after a plain file took its place", fileBound+slack)
		})
	}
}

// TestOddFilesAsCABundleWhileRunning replaces the bundle by something else. It expects that the last bundle stays
// in use, and that the next good bundle is read.
func TestOddFilesAsCABundleWhileRunning(t *testing.T) {
	t.Parallel()
	for what, create := range oddFiles {
		t.Run("ca_"+what, func(t *testing.T) {
			t.Parallel()
			p, f, bundle := bundled(t, asItIs)
			p.waitHealthy(t, "at the start", startBound)
			must(t, os.Remove(bundle))
			must(t, create(bundle))
			// The plugin checks the file every two seconds.
			parts.Eventually(fileBound, func() bool { return strings.Contains(p.Printed(), "ca.pem") })
			p.waitHealthy(t, "with the last good bundle", callTimeout)
			f.Renew(t)
			replace(t, bundle, readFile(t, f.CAFile))
			p.waitHealthy(t, "after the authority and the bundle were replaced", fileBound+slack)
		})
	}
}

// TestNoSystemAuthorities expects that the error names the flag on a machine without a bundle, and that
// SSL_CERT_FILE is used.
func TestNoSystemAuthorities(t *testing.T) {
	t.Parallel()
	n := newTenant(t)
	flags := withoutFlag(n.Flags(), "--tls-ca-file")
	none := apart(t, `for dir in /etc/ssl /etc/pki /etc/ca-certificates /usr/lib/ssl /usr/local/ssl /usr/share/ca-certificates /usr/local/share/certs /var/lib/ca-certificates; do
		if [ -d "$dir" ]; then mount -t tmpfs none "$dir"; fi; done`)
	t.Run("none", func(t *testing.T) {
		t.Parallel()
		p := launch(t, flags, none...)
		var last string
		if !parts.Eventually(startBound, func() bool {
			if err := p.status(t.Context()); err != nil {
				last = err.Error()
			}
			return strings.Contains(last+p.Printed(), "--tls-ca-file")
		}) {
			t.Errorf("the flag is not named: %s; %s", last, p.Printed())
		}
	})
	t.Run("SSL_CERT_FILE", func(t *testing.T) {
		t.Parallel()
		start(t, flags, append(none, "env", "SSL_CERT_FILE="+n.Bao.CAFile)...)
	})
}
