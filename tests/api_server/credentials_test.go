package apiserver_test

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"vault-kube-kms.test/parts"
	"vault-kube-kms.test/suite"
)

// wrap returns a wrapping token for a new secret ID of the role.
func (n *tenant) wrap(t *testing.T) string {
	t.Helper()
	token, err := n.Bao.Wrap("POST", "auth/approle/role/"+n.Key+"/secret-id", nil)
	must(t, err)
	return token
}

func wrapped(n *tenant, more ...string) []string {
	return with(append(n.Flags(), "--approle-secret-id-wrapped"), more...)
}

func TestAWrappedSecretIDIsUnwrappedOnce(t *testing.T) {
	t.Parallel()
	n := sharedBao(t).tenant(t)
	n.withRole(t, map[string]any{"token_ttl": "5s", "token_max_ttl": "5s"})
	token := n.wrap(t)
	must(t, n.WriteSecretID(token))
	p, metrics := metered(t, wrapped(n))
	client := p.client(t)
	if _, err := n.bao.Ask("POST", "sys/wrapping/lookup", map[string]any{"token": token}); err == nil {
		t.Error("the wrapping token is still good")
	}
	// Logins go on with the unwrapped secret ID, and then with that of the next wrapping token.
	read := readAllTheTime(t, client, store(t, client))
	requireMoreLogins(t, metrics, 1)
	must(t, n.WriteSecretID(n.wrap(t)))
	requireMoreLogins(t, metrics, 2)
	read.requireFailures(t, 0)

	// TestAUsedWrappingTokenIsReportedAndANewOneHeals expects an ALERT for a used wrapping token, and that the
	// last good secret ID stays in use.
	stolen := n.wrap(t)
	_, err := n.bao.Ask("POST", "sys/wrapping/unwrap", map[string]any{"token": stolen})
	must(t, err)
	must(t, n.WriteSecretID(stolen))
	if !parts.Eventually(startBound, func() bool { return strings.Contains(p.Stdout.String(), "ALERT: the secret ID may be stolen") }) {
		t.Errorf("no alert: %s", p.Printed())
	}
	p.requireHealthy(t)
	if printed := p.Printed(); strings.Contains(printed, stolen) || strings.Contains(printed, token) {
		t.Error("a wrapping token is logged")
	}
}

func TestAUsedWrappingTokenIsReportedAndANewOneHeals(t *testing.T) {
	t.Parallel()
	n := sharedBao(t).tenant(t)
	used := n.wrap(t)
	_, err := n.bao.Ask("POST", "sys/wrapping/unwrap", map[string]any{"token": used})
	must(t, err)
	must(t, n.WriteSecretID(used))
	p := launch(t, newEndpoint(t), wrapped(n))
	p.waitAccepts(t)
	requireStatusSays(t, p.client(t), "wrapping-token-used")
	must(t, n.WriteSecretID(n.wrap(t)))
	p.waitHealthy(t)
	if alerts := strings.Count(p.Stdout.String(), "ALERT"); alerts != 1 {
		t.Errorf("%d alerts for one token", alerts)
	}
}

// TestCheckLeavesAWrappingTokenToTheProvider expects that check only looks a wrapping token up: the provider
// would take the use of its token for a theft.
func TestCheckLeavesAWrappingTokenToTheProvider(t *testing.T) {
	t.Parallel()
	n := sharedBao(t).tenant(t)
	must(t, n.WriteSecretID(n.wrap(t)))
	endpoint := newEndpoint(t)
	flags := wrapped(n)
	checks := with(flags, "--listen-address="+endpoint)
	expected := func(login string) []string {
		return []string{
			"WARN files: --approle-secret-id-wrapped: a wrapping token works only once",
			login,
			"not checked, because of the above: policy",
		}
	}
	requireChecked(t, checks, 1, expected("WARN login: wrapping-token-left: the wrapping token of the secret ID is valid")...)
	p := launch(t, endpoint, flags)
	p.waitHealthy(t)
	if printed := p.Printed(); strings.Contains(printed, "ALERT") {
		t.Errorf("check used the token up: %s", printed)
	}
	requireChecked(t, checks, 2, expected("FAIL login: wrapping-token-used: the wrapping token of the secret ID was used before")...)
}

// TestCheckUsesTheCachedSecretID expects that check logs in with the secret ID that the provider has cached.
func TestCheckUsesTheCachedSecretID(t *testing.T) {
	t.Parallel()
	n := sharedBao(t).tenant(t)
	must(t, n.WriteSecretID(n.wrap(t)))
	endpoint := newEndpoint(t)
	cache := filepath.Join(shortDir(t), "cache")
	flags := wrapped(n, "--approle-secret-id-cache="+cache)
	launch(t, endpoint, flags).waitHealthy(t)
	before, err := os.ReadFile(cache)
	must(t, err)
	requireChecked(t, with(flags, "--listen-address="+endpoint), 1, "WARN files: is not on tmpfs")
	if after, err := os.ReadFile(cache); err != nil || !bytes.Equal(before, after) {
		t.Errorf("check has written the cache: %v", err)
	}
}

// TestATokenThatWrapsAnotherSecretIsNotUnwrapped expects that a token which wraps another kind of secret is not
// unwrapped.
func TestATokenThatWrapsAnotherSecretIsNotUnwrapped(t *testing.T) {
	t.Parallel()
	n := sharedBao(t).tenant(t)
	other, err := n.Bao.Wrap("POST", "sys/wrapping/wrap", map[string]any{"secret_id": n.SecretID})
	must(t, err)
	must(t, n.WriteSecretID(other))
	p := launch(t, newEndpoint(t), wrapped(n))
	p.waitAccepts(t)
	requireStatusSays(t, p.client(t), "does not wrap a secret ID")
	if _, err := n.bao.Ask("POST", "sys/wrapping/lookup", map[string]any{"token": other}); err != nil {
		t.Errorf("the token was used up: %v", err)
	}
}

func TestTheCacheKeepsTheSecretIDOverRestarts(t *testing.T) {
	t.Parallel()
	n := sharedBao(t).tenant(t)
	must(t, n.WriteSecretID(n.wrap(t)))
	cache := filepath.Join(shortDir(t), "cache")
	flags := wrapped(n, "--approle-secret-id-cache="+cache)
	start(t, flags).Stop()
	found, err := os.Stat(cache)
	must(t, err)
	if found.Mode().Perm() != 0o600 {
		t.Errorf("the cache has mode %v", found.Mode())
	}
	p := start(t, flags)
	if strings.Contains(p.Printed(), "ALERT") {
		t.Errorf("the used token was tried again: %s", p.Printed())
	}
	p.Stop()
	// Without the cache the token is used up, and the error says so.
	bare := launch(t, newEndpoint(t), wrapped(n))
	bare.waitAccepts(t)
	requireStatusSays(t, bare.client(t), "wrapping-token-used")
	if !strings.Contains(bare.Stdout.String(), "a restart needs a new one") {
		t.Error("the start logged nothing about it")
	}
	bare.Stop()
	// A new wrapping token replaces the cached secret ID.
	must(t, n.WriteSecretID(n.wrap(t)))
	start(t, flags).Stop()
	start(t, flags)
}

func TestAWrappedSecretIDOfANamespace(t *testing.T) {
	t.Parallel()
	suite.NeedsOpenBao(t, "namespaces")
	b := ownBao(t)
	admin, err := b.Within("admin")
	must(t, err)
	made, err := admin.NewTenant(parts.RandomName(), shortDir(t), 60, parts.UseOfKey...)
	must(t, err)
	n := &tenant{made, bao{admin}}
	must(t, n.MakeKey())
	must(t, n.WriteSecretID(n.wrap(t)))
	start(t, wrapped(n, "--vault-namespace=admin"))
}

// TestARoleIDFileOfAProjectedVolume updates the file of the role ID as the kubelet updates a projected volume: it
// replaces a link.
func TestARoleIDFileOfAProjectedVolume(t *testing.T) {
	t.Parallel()
	n, other := sharedBao(t).tenant(t), sharedBao(t).tenant(t)
	// Both roles may use the key.
	for _, role := range []*tenant{n, other} {
		role.withRole(t, map[string]any{"token_policies": n.Key, "token_ttl": "5s", "token_max_ttl": "5s"})
	}
	volume := shortDir(t)
	project := func(version, roleID, secretID string) {
		t.Helper()
		dir := filepath.Join(volume, version)
		must(t, os.Mkdir(dir, 0o700))
		must(t, os.WriteFile(filepath.Join(dir, "role-id"), []byte(roleID), 0o600))
		must(t, os.WriteFile(filepath.Join(dir, "secret-id"), []byte(secretID), 0o600))
		must(t, os.Symlink(version, filepath.Join(volume, "..data_tmp")))
		must(t, os.Rename(filepath.Join(volume, "..data_tmp"), filepath.Join(volume, "..data")))
	}
	project("..1", n.RoleID, n.SecretID)
	for _, name := range []string{"role-id", "secret-id"} {
		must(t, os.Symlink("..data/"+name, filepath.Join(volume, name)))
	}
	p, metrics := metered(t, []string{
		"--vault-address=https://" + n.Bao.Address, "--tls-ca-file=" + n.Bao.CAFile,
		"--vault-key-path=transit/keys/" + n.Key, "--approle-role-id-path=" + filepath.Join(volume, "role-id"),
		"--approle-secret-id-path=" + filepath.Join(volume, "secret-id"),
	})
	client := p.client(t)
	read := readAllTheTime(t, client, store(t, client))
	project("..2", other.RoleID, other.SecretID)
	n.bao.must(t, "DELETE", "auth/approle/role/"+n.Key, nil)
	requireMoreLogins(t, metrics, 2)
	// The volume is missing for some time, as when a node's disk is full. The last good role ID stays in use.
	must(t, os.Rename(filepath.Join(volume, "..data"), filepath.Join(volume, "away")))
	requireMoreLogins(t, metrics, 2)
	must(t, os.Rename(filepath.Join(volume, "away"), filepath.Join(volume, "..data")))
	read.requireFailures(t, 0)
}

// TestARoleIDFileThatComesLater expects that the plugin waits for the role ID without a busy loop, if only the
// secret ID exists.
func TestARoleIDFileThatComesLater(t *testing.T) {
	t.Parallel()
	n := sharedBao(t).tenant(t)
	roleIDFile, port := filepath.Join(shortDir(t), "role-id"), parts.FreePort()
	p := launch(t, newEndpoint(t), []string{
		"--vault-address=https://" + n.Bao.Address, "--tls-ca-file=" + n.Bao.CAFile,
		"--vault-key-path=transit/keys/" + n.Key, "--approle-role-id-path=" + roleIDFile,
		"--approle-secret-id-path=" + n.SecretIDFile, fmt.Sprintf("--metrics-port=%d", port),
	})
	began := time.Now()
	p.waitAccepts(t)
	client := p.client(t)
	if !parts.Eventually(startBound, func() bool {
		_, err := client.Status(t.Context())
		return err != nil && strings.Contains(message(err), "approle-role-id-path")
	}) {
		t.Error("Status does not name the flag")
	}
	time.Sleep(2 * time.Second)
	metrics := fmt.Sprintf("http://127.0.0.1:%d/metrics", port)
	if tries, _ := counted(t, metrics, "vault_kube_kms_session_failures_total"); tries > 2+time.Since(began).Seconds() {
		t.Errorf("%v tries within %v", tries, time.Since(began))
	}
	must(t, os.WriteFile(roleIDFile, []byte(n.RoleID), 0o600))
	p.waitHealthy(t)
}

// TestTheAuthoritiesAreReplacedWithoutARestart gives the server a certificate of another authority. It expects
// that a new bundle is read without a restart, and that a bad bundle changes nothing.
func TestTheAuthoritiesAreReplacedWithoutARestart(t *testing.T) {
	t.Parallel()
	n := sharedBao(t).tenant(t)
	served := suite.Front{Days: 365}.Serve(t, n.Bao)
	bundle := filepath.Join(shortDir(t), "ca.pem")
	install := func(pem []byte) {
		t.Helper()
		must(t, os.WriteFile(bundle+".new", pem, 0o600))
		must(t, os.Rename(bundle+".new", bundle))
	}
	authority := func() []byte {
		t.Helper()
		pem, err := os.ReadFile(served.CAFile)
		must(t, err)
		return pem
	}
	install(authority())
	p := start(t, with(n.FlagsVia(served.Address), "--tls-ca-file="+bundle))
	client := p.client(t)
	one := store(t, client)
	install([]byte("no certificate at all"))
	if !parts.Eventually(startBound, func() bool {
		return strings.Contains(p.Stdout.String(), "this process still uses the previous authorities")
	}) {
		t.Errorf("the log does not report the bad bundle: %s", p.Printed())
	}
	requireOpens(t, client, one.sealed, one.plaintext)

	served.Renew(t)
	install(authority())
	renewed := parts.StartWatch()
	if !parts.Eventually(10*time.Second, func() bool {
		_, err := client.Decrypt(t.Context(), "renewed", asStored(one.sealed))
		return err == nil
	}) {
		t.Errorf("the new authority is not trusted: %s", p.Printed())
	}
	t.Logf("the new authority is used after %v", renewed)
	p.requireHealthy(t)
}
