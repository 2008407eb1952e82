package apiserver_test

import (
	"encoding/json"
	"errors"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"vault-kube-kms.test/parts"
	"vault-kube-kms.test/suite"
)

// checked returns the output of `check` and its exit code.
func checked(t *testing.T, flags []string, more ...string) (string, int) {
	t.Helper()
	out, err := parts.Command(slices.Concat([]string{needed(t, "PROVIDER"), "check"}, flags, more)...).CombinedOutput()
	var failed *exec.ExitError
	if err != nil && !errors.As(err, &failed) {
		t.Fatal(err)
	}
	if failed != nil {
		return string(out), failed.ExitCode()
	}
	return string(out), 0
}

// requireChecked requires this worst verdict and exactly these lines beside the lines that pass. A line is a
// verdict, an area and a part of the text.
func requireChecked(t *testing.T, flags []string, code int, expected ...string) string {
	t.Helper()
	printed, exit := checked(t, flags)
	var bad []string
	for line := range strings.Lines(printed) {
		if !strings.HasPrefix(line, "PASS ") {
			bad = append(bad, line)
		}
	}
	good := exit == code && slices.EqualFunc(bad, expected, func(line, expected string) bool {
		start, text, _ := strings.Cut(expected, ": ")
		return strings.HasPrefix(strings.Join(strings.Fields(line), " "), start) && strings.Contains(line, text)
	})
	if !good {
		t.Errorf("it exits with %d instead of %d; expected\n%s\nbeside what passes:\n%s", exit, code, strings.Join(expected, "\n"), printed)
	}
	return printed
}

func TestCheckOfAGoodInstallation(t *testing.T) {
	t.Parallel()
	tenant := sharedBao(t).tenant(t)
	flags := with(tenant.Flags(), "--listen-address="+newEndpoint(t))
	printed := requireChecked(t, flags, 0)
	// A server before Go 1.24 has no hybrid key exchange.
	if !regexp.MustCompile(`PASS  connection +TLS.*1\.3 \(X25519(MLKEM768)?\) with `).MatchString(printed) {
		t.Errorf("the key exchange is not named: %s", printed)
	}
	for _, area := range []string{"configuration", "socket", "files", "connection", "login", "policy", "key", "binding", "clock"} {
		if !strings.Contains(printed, "PASS  "+area) {
			t.Errorf("nothing about %s in\n%s", area, printed)
		}
	}
	text, code := checked(t, flags, "--output=json")
	var report struct {
		Verdict  string
		Findings []struct{ Area, Verdict, Text, Remedy string }
	}
	must(t, json.Unmarshal([]byte(text), &report))
	if code != 0 || report.Verdict != "PASS" || len(report.Findings) != strings.Count(printed, "\n") {
		t.Errorf("it exits with %d and prints %s", code, text)
	}
}

// TestCheckBesideARunningProvider expects that `check` reports the key id of the running provider.
func TestCheckBesideARunningProvider(t *testing.T) {
	onEachPlugin(t, func(t *testing.T, p *plugin) {
		id := keyID(t, p.client(t))
		printed, _ := checked(t, p.flags, "--listen-address="+p.endpoint)
		for _, line := range []string{"a provider serves at " + p.endpoint + ": ok, " + id, "version 1 writes, as " + id} {
			if !strings.Contains(printed, line) {
				t.Errorf("%q is not in\n%s", line, printed)
			}
		}
		p.requireHealthy(t)
	})
}

func TestCheckNamesWhatIsWrong(t *testing.T) {
	t.Parallel()
	unchecked := "not checked: login, policy, key, binding, clock"
	for name, c := range map[string]struct {
		code     int
		expected []string
		// spoil breaks an installation and returns its flags.
		spoil func(t *testing.T, n *tenant) []string
	}{
		"a flag that does not exist": {2, []string{"FAIL configuration: did you mean --vault-address?"}, func(t *testing.T, n *tenant) []string {
			return append(n.Flags(), "--vault-adress=x")
		}},
		"a directory that does not exist": {2, []string{"FAIL socket: create it"}, func(t *testing.T, n *tenant) []string {
			return append(n.Flags(), "--listen-address="+filepath.Join(shortDir(t), "none", "kms.sock"))
		}},
		"a file in the socket's place": {2, []string{"FAIL socket: is not a socket"}, func(t *testing.T, n *tenant) []string {
			path := filepath.Join(shortDir(t), "kms.sock")
			must(t, os.WriteFile(path, nil, 0o600))
			return append(n.Flags(), "--listen-address="+path)
		}},
		"whoever serves the socket is silent": {2, []string{"FAIL socket: does not answer"}, func(t *testing.T, n *tenant) []string {
			endpoint := newEndpoint(t)
			listener, err := net.Listen("unix", dialled(endpoint))
			must(t, err)
			t.Cleanup(func() { _ = listener.Close() })
			return append(n.Flags(), "--listen-address="+endpoint)
		}},
		"the provider is unhealthy": {2, []string{"FAIL socket: keeper-unreachable"}, func(t *testing.T, n *tenant) []string {
			p := launch(t, newEndpoint(t), n.FlagsVia(parts.FreeAddress()))
			waitUnhealthy(t, p.client(t), startBound)
			if !parts.Eventually(startBound, func() bool {
				_, err := p.client(t).Status(t.Context())
				return err != nil && strings.Contains(err.Error(), "keeper-unreachable")
			}) {
				t.Fatal("the log never says so")
			}
			return append(n.Flags(), "--listen-address="+p.endpoint)
		}},
		"a clock that is wrong": {1, []string{"WARN clock: s apart; synchronise both"}, func(t *testing.T, n *tenant) []string {
			front := suite.Front{Days: 365,
				See: func(r *http.Response) error {
					r.Header.Set("Date", time.Now().Add(10*time.Minute).UTC().Format(http.TimeFormat))
					return nil
				},
			}
			served := front.Serve(t, n.Bao)
			return with(n.FlagsVia(served.Address), "--tls-ca-file="+served.CAFile)
		}},
		"a directory that everybody may write to": {1, []string{"WARN socket: --listen-address: every user may write to"}, func(t *testing.T, n *tenant) []string {
			dir := shortDir(t)
			must(t, os.Chmod(dir, 0o777))
			return append(n.Flags(), "--listen-address="+filepath.Join(dir, "kms.sock"))
		}},
		"no secret ID": {2, []string{"FAIL files: credential-unreadable", "FAIL login: credential-unreadable", "not checked: policy, key, binding, clock"}, func(t *testing.T, n *tenant) []string {
			must(t, os.Remove(n.SecretIDFile))
			return n.Flags()
		}},
		"a secret ID that others can read": {1, []string{"WARN files: chmod it to 0600"}, func(t *testing.T, n *tenant) []string {
			must(t, os.Chmod(n.SecretIDFile, 0o640))
			return n.Flags()
		}},
		"an authority that others can write": {1, []string{"WARN files: --tls-ca-file: group or others can write"}, func(t *testing.T, n *tenant) []string {
			text, err := os.ReadFile(n.Bao.CAFile)
			must(t, err)
			copied := filepath.Join(shortDir(t), "ca.pem")
			must(t, os.WriteFile(copied, text, 0o600))
			must(t, os.Chmod(copied, 0o666))
			return append(n.Flags(), "--tls-ca-file="+copied)
		}},
		"a wrong secret ID": {2, []string{"FAIL login: login-refused", "not checked: policy, key, binding, clock"}, func(t *testing.T, n *tenant) []string {
			must(t, n.WriteSecretID("00000000-4711-4711-4711-000000000000"))
			return n.Flags()
		}},
		"nobody listens": {2, []string{"FAIL connection: Connection refused", unchecked}, func(t *testing.T, n *tenant) []string {
			return n.FlagsVia(parts.FreeAddress())
		}},
		"somebody listens and says nothing": {2, []string{"FAIL connection: keeper-timeout", unchecked}, func(t *testing.T, n *tenant) []string {
			listener, err := net.Listen("tcp", "127.0.0.1:0")
			must(t, err)
			t.Cleanup(func() { _ = listener.Close() })
			return append(n.FlagsVia(listener.Addr().String()), "--vault-request-timeout=300ms")
		}},
		"another authority": {2, []string{"FAIL connection: --tls-ca-file", unchecked}, func(t *testing.T, n *tenant) []string {
			return append(n.Flags(), "--tls-ca-file="+foreignAuthority(t))
		}},
		"another name": {2, []string{"FAIL connection: --tls-sni", unchecked}, func(t *testing.T, n *tenant) []string {
			return append(n.Flags(), "--tls-sni=elsewhere.example.org")
		}},
		"no certificate is verified": {1, []string{"WARN connection: any server can pose as the keeper"}, func(t *testing.T, n *tenant) []string {
			return append(n.Flags(), "--tls-skip-verify")
		}},
		"a certificate that ends soon": {1, []string{"WARN connection: expires in"}, func(t *testing.T, n *tenant) []string {
			return laggardUntil(t, n, 3).flags(n)
		}},
		"no right to decrypt": {2, []string{
			"FAIL policy: update on transit/decrypt/", "FAIL binding: permission-denied",
		}, func(t *testing.T, n *tenant) []string {
			n.allow(t, "read keys", "update encrypt")
			return n.Flags()
		}},
		"no right to read the key": {2, []string{
			"FAIL policy: read on transit/keys/", "FAIL key: permission-denied", "not checked: binding, clock",
		}, func(t *testing.T, n *tenant) []string {
			n.allow(t, "update encrypt", "update decrypt")
			return n.Flags()
		}},
		"the right to make a key": {1, []string{"WARN policy: create on transit/encrypt/"}, func(t *testing.T, n *tenant) []string {
			n.allow(t, append(parts.UseOfKey, "create encrypt")...)
			return n.Flags()
		}},
		"rights that are not needed": {1, []string{
			"WARN policy: the key can be exported", "WARN policy: the key can be exported",
		}, func(t *testing.T, n *tenant) []string {
			n.allow(t, append(parts.UseOfKey, "read backup", "read export/encryption-key")...)
			return n.Flags()
		}},
		"a token that may not ask": {1, []string{"WARN policy: sys/capabilities-self"}, func(t *testing.T, n *tenant) []string {
			n.bao.must(t, "POST", "auth/approle/role/"+n.Key, map[string]any{"token_no_default_policy": true})
			return n.Flags()
		}},
		"no key": {2, []string{"FAIL key: key-missing", "not checked: binding, clock"}, func(t *testing.T, n *tenant) []string {
			role := n.bao.role(t, parts.UseOfKey...)
			return role.Flags()
		}},
		"a key that cannot bind": {2, []string{"FAIL key: key-unusable", "not checked: binding"}, func(t *testing.T, n *tenant) []string {
			role := n.bao.role(t, parts.UseOfKey...)
			n.bao.must(t, "POST", "transit/keys/"+role.Key, map[string]any{"type": "rsa-2048"})
			return role.Flags()
		}},
		"a key that can be lost and taken": {1, []string{
			"WARN key: allow_plaintext_backup", "WARN key: deletion_allowed", "WARN key: exportable",
		}, func(t *testing.T, n *tenant) []string {
			n.bao.must(t, "POST", "transit/keys/"+n.Key+"/config", map[string]any{
				"deletion_allowed": true, "exportable": true, "allow_plaintext_backup": true,
			})
			return n.Flags()
		}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			n := sharedBao(t).tenant(t)
			flags := append([]string{"--listen-address=" + newEndpoint(t)}, c.spoil(t, n)...)
			printed := requireChecked(t, flags, c.code, c.expected...)
			if strings.Contains(printed, n.SecretID) {
				t.Error("the secret ID is printed")
			}
		})
	}
}

func TestCheckOfTheEmbeddedKeeper(t *testing.T) {
	t.Parallel()
	flags := with(localFlags(t), "--listen-address="+newEndpoint(t))
	requireChecked(t, flags, 1, "WARN files: back it up")
	file := strings.TrimPrefix(flags[1], "--local-key-file=")
	must(t, os.Chmod(file, 0o640))
	requireChecked(t, flags, 2, "WARN files: back it up", "FAIL files: "+file, "not checked: key, binding")
}
