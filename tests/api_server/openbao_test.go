package apiserver_test

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// bao is an OpenBao server in development mode with TLS.
type bao struct {
	address, token, dir string
	cmd                 *exec.Cmd
	exited              chan struct{}
	http                *http.Client
}

var shared struct {
	once sync.Once
	bao  *bao
	err  error
}

// sharedBao is the server that all tests share which do not harm it.
func sharedBao(t *testing.T) *bao {
	t.Helper()
	program := needed(t, "BAO")
	shared.once.Do(func() { shared.bao, shared.err = startBao(program) })
	if shared.err != nil {
		t.Fatal(shared.err)
	}
	return shared.bao
}

func stopSharedBao() {
	if shared.bao != nil {
		shared.bao.stop()
	}
}

// ownBao is a server for a test that harms it.
func ownBao(t *testing.T) *bao {
	t.Helper()
	b, err := startBao(needed(t, "BAO"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.stop)
	return b
}

func startBao(program string) (*bao, error) {
	var err error
	// Somebody else may have taken the port meanwhile.
	for range 3 {
		var b *bao
		if b, err = tryBao(program); err == nil {
			return b, nil
		}
	}
	return nil, err
}

func tryBao(program string) (*bao, error) {
	dir, err := os.MkdirTemp("/tmp", "vkk-bao")
	if err != nil {
		return nil, err
	}
	port := freePort()
	b := &bao{
		address: fmt.Sprintf("127.0.0.1:%d", port),
		token:   "root-" + randomName(),
		dir:     dir,
		exited:  make(chan struct{}),
	}
	b.cmd = command(program, "server", "-dev", "-dev-no-store-token", "-dev-tls",
		"-dev-tls-cert-dir="+dir, "-dev-listen-address="+b.address, "-dev-root-token-id="+b.token)
	b.cmd.Env = append(b.cmd.Env, "HOME="+dir)
	var log output
	b.cmd.Stdout, b.cmd.Stderr = &log, &log
	if err := b.cmd.Start(); err != nil {
		return nil, err
	}
	go func() {
		_ = b.cmd.Wait()
		close(b.exited)
	}()
	if err := b.setUp(); err != nil {
		b.stop()
		return nil, fmt.Errorf("OpenBao does not start: %w: %s", err, tail(log.String()))
	}
	return b, nil
}

func (b *bao) stop() {
	_ = b.cmd.Process.Kill()
	<-b.exited
	_ = os.RemoveAll(b.dir)
}

func (b *bao) caFile() string { return filepath.Join(b.dir, "vault-ca.pem") }

// setUp waits until the server answers and mounts what all tests use.
func (b *bao) setUp() error {
	err := errors.New("it takes too long")
	if !eventually(startBound, func() bool {
		select {
		case <-b.exited:
			err = errors.New("it has ended")
			return true
		default:
		}
		if b.trustItself() != nil {
			return false
		}
		if _, failed := b.ask("GET", "sys/health", nil); failed != nil {
			return false
		}
		err = nil
		return true
	}) || err != nil {
		return err
	}
	for path, kind := range map[string]string{"sys/mounts/transit": "transit", "sys/auth/approle": "approle"} {
		if _, err := b.ask("POST", path, map[string]any{"type": kind}); err != nil {
			return err
		}
	}
	return nil
}

// trustItself reads the authority that the server has made for itself.
func (b *bao) trustItself() error {
	pem, err := os.ReadFile(b.caFile())
	if err != nil {
		return err
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(pem) {
		return errors.New("no certificate yet")
	}
	b.http = &http.Client{
		Timeout:   10 * time.Second,
		Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}},
	}
	return nil
}

// ask sends one request of the root user and returns the data of the answer.
func (b *bao) ask(method, path string, body map[string]any) (map[string]any, error) {
	payload, err := json.Marshal(body)
	if err != nil {
		return nil, err
	}
	request, err := http.NewRequest(method, "https://"+b.address+"/v1/"+path, bytes.NewReader(payload))
	if err != nil {
		return nil, err
	}
	request.Header.Set("X-Vault-Token", b.token)
	response, err := b.http.Do(request)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil || response.StatusCode >= 300 {
		return nil, fmt.Errorf("%s %s: %s %s %w", method, path, response.Status, text, err)
	}
	var answer struct{ Data map[string]any }
	if len(text) > 0 {
		err = json.Unmarshal(text, &answer)
	}
	return answer.Data, err
}

func (b *bao) must(t *testing.T, method, path string, body map[string]any) map[string]any {
	t.Helper()
	data, err := b.ask(method, path, body)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// tenant is one key with a role that may use it.
type tenant struct {
	bao                          *bao
	key, roleID, secretID, idDir string
}

// tenant makes a key and a role with all that a plugin needs.
func (b *bao) tenant(t *testing.T) *tenant {
	t.Helper()
	tenant := b.role(t, "read keys", "update encrypt", "update decrypt")
	b.must(t, "POST", "transit/keys/"+tenant.key, map[string]any{"type": "aes256-gcm96"})
	return tenant
}

// role makes a role that may do just this with a key, and not the key.
func (b *bao) role(t *testing.T, grants ...string) *tenant {
	t.Helper()
	tenant := &tenant{bao: b, key: randomName(), idDir: shortDir(t)}
	tenant.allow(t, grants...)
	role := "auth/approle/role/" + tenant.key
	// Short, so that tokens are renewed and replaced while the tests run.
	b.must(t, "POST", role, map[string]any{
		"token_policies": tenant.key, "token_ttl": "60s", "token_max_ttl": "120s",
	})
	tenant.roleID = b.must(t, "GET", role+"/role-id", nil)["role_id"].(string)
	tenant.secretID = b.must(t, "POST", role+"/secret-id", nil)["secret_id"].(string)
	tenant.writeSecretID(t, tenant.secretID)
	return tenant
}

// allow makes this all that the role may do with its key, from now on.
func (n *tenant) allow(t *testing.T, grants ...string) {
	t.Helper()
	var policy strings.Builder
	for _, grant := range grants {
		capability, path, _ := strings.Cut(grant, " ")
		fmt.Fprintf(&policy, "path %q { capabilities = [%q] }\n", "transit/"+path+"/"+n.key, capability)
	}
	n.bao.must(t, "PUT", "sys/policies/acl/"+n.key, map[string]any{"policy": policy.String()})
}

func (n *tenant) rotate(t *testing.T) {
	t.Helper()
	n.bao.must(t, "POST", "transit/keys/"+n.key+"/rotate", nil)
}

func (n *tenant) secretIDFile() string { return filepath.Join(n.idDir, "secret-id") }

func (n *tenant) writeSecretID(t *testing.T, secretID string) {
	t.Helper()
	if err := os.WriteFile(n.secretIDFile(), []byte(secretID+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
}

func (n *tenant) flags() []string { return n.flagsVia(n.bao.address) }

// flagsVia are the flags for a plugin that reaches the server by another address.
func (n *tenant) flagsVia(address string) []string {
	return []string{
		"--vault-address=https://" + address,
		"--tls-ca-file=" + n.bao.caFile(),
		"--vault-key-path=transit/keys/" + n.key,
		"--approle-role-id=" + n.roleID,
		"--approle-secret-id-path=" + n.secretIDFile(),
	}
}
