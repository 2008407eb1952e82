package parts

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
)

// OpenBao is a server with TLS that has the Transit engine and AppRole mounted.
type OpenBao struct {
	*Process
	// Address is its host and port, CAFile the authority of its certificate.
	Address, CAFile string
	// Token is the root token.
	Token string
	// HTTP is a client that trusts its certificate.
	HTTP *http.Client

	start  func() (*Process, error)
	unseal string
	// cluster is its address for other nodes.
	cluster string
	// standsBy means that it also serves while another node leads.
	standsBy bool
	// prefix is the namespace before all paths.
	prefix string
}

// StartDevOpenBao starts a server that keeps its data in memory, with its files in a folder.
func StartDevOpenBao(way Way, program, dir string) (*OpenBao, error) {
	b := &OpenBao{
		Address: FreeAddress(), CAFile: filepath.Join(dir, "vault-ca.pem"), Token: "root-" + RandomName(),
	}
	b.start = func() (*Process, error) {
		return way.Start("openbao", []string{
			program, "server", "-dev", "-dev-no-store-token", "-dev-tls", "-dev-tls-cert-dir=" + dir,
			"-dev-listen-address=" + b.Address, "-dev-root-token-id=" + b.Token,
		}, "HOME="+dir)
	}
	return b, b.firstStart(func() error { return nil })
}

// StartPlainOpenBao is StartDevOpenBao without TLS and without mounts.
func StartPlainOpenBao(way Way, program, dir string) (*OpenBao, error) {
	b := &OpenBao{Address: FreeAddress()}
	var err error
	b.Process, err = way.Start("openbao", []string{
		program, "server", "-dev", "-dev-no-store-token", "-dev-listen-address=" + b.Address,
	}, "HOME="+dir)
	if err != nil {
		return nil, err
	}
	err = b.Until(func() error {
		response, err := http.Get("http://" + b.Address + "/v1/sys/seal-status")
		if err == nil {
			_ = response.Body.Close()
		}
		return err
	})
	if err != nil {
		b.Kill()
		return nil, fmt.Errorf("OpenBao: %w", err)
	}
	return b, nil
}

// StartOpenBao starts a server that keeps its data in a folder, so that it can be started again.
func StartOpenBao(way Way, program, dir string) (*OpenBao, error) {
	certificate, err := NewCertificate(dir, 365)
	if err != nil {
		return nil, err
	}
	b := &OpenBao{Address: FreeAddress(), CAFile: certificate.CAFile}
	if err := b.configure(way, "openbao", program, dir, certificate, nil); err != nil {
		return nil, err
	}
	return b, b.firstStart(b.initialise)
}

// configure writes its configuration and makes its folders. The server joins the peers, if there are any.
func (b *OpenBao) configure(way Way, name, program, dir string, certificate Certificate, peers []map[string]any) error {
	data := filepath.Join(dir, "data")
	if err := os.MkdirAll(data, 0o700); err != nil {
		return err
	}
	raft := map[string]any{"path": data, "node_id": name, "performance_multiplier": 1}
	if len(peers) > 0 {
		raft["retry_join"] = peers
	}
	config, err := json.MarshalIndent(map[string]any{
		"storage": map[string]any{"raft": raft},
		"listener": map[string]any{"tcp": map[string]any{
			"address": b.Address, "tls_cert_file": certificate.CertFile, "tls_key_file": certificate.KeyFile,
			"cluster_address": b.clusterAddress(),
		}},
		"api_addr":      "https://" + b.Address,
		"cluster_addr":  "https://" + b.clusterAddress(),
		"disable_mlock": true,
	}, "", "  ")
	if err != nil {
		return err
	}
	file := filepath.Join(dir, "openbao.json")
	if err := os.WriteFile(file, config, 0o600); err != nil {
		return err
	}
	b.start = func() (*Process, error) {
		return way.Start(name, []string{program, "server", "-config=" + file}, "HOME="+dir)
	}
	return nil
}

// clusterAddress returns its address for other nodes. It chooses the address once.
func (b *OpenBao) clusterAddress() string {
	if b.cluster == "" {
		b.cluster = FreeAddress()
	}
	return b.cluster
}

// Restart starts it again, with its data, after it was stopped or killed.
func (b *OpenBao) Restart() error {
	if err := b.RestartSealed(); err != nil {
		return err
	}
	if err := b.Unseal(); err != nil {
		return err
	}
	return b.untilServes()
}

// RestartSealed starts it again without unsealing it.
func (b *OpenBao) RestartSealed() error {
	var err error
	if b.Process, err = b.start(); err != nil {
		return err
	}
	return b.untilAnswers()
}

// Unseal unseals it with the key of its initialisation.
func (b *OpenBao) Unseal() error {
	var state struct{ Sealed bool }
	if err := b.send("PUT", "sys/unseal", map[string]any{"key": b.unseal}, &state); err != nil {
		return err
	}
	if state.Sealed {
		return errors.New("it is sealed still")
	}
	return nil
}

func (b *OpenBao) firstStart(initialise func() error) error {
	err := b.tryFirstStart(initialise)
	if err != nil && b.Process != nil {
		b.Kill()
	}
	return err
}

func (b *OpenBao) tryFirstStart(initialise func() error) error {
	var err error
	if b.Process, err = b.start(); err != nil {
		return err
	}
	if err := b.untilAnswers(); err != nil {
		return fmt.Errorf("OpenBao: %w", err)
	}
	if err := initialise(); err != nil {
		return fmt.Errorf("OpenBao: %w", err)
	}
	if err := b.untilServes(); err != nil {
		return fmt.Errorf("OpenBao: %w", err)
	}
	return b.mount()
}

// Within makes a namespace with the same mounts as the root. Requests of the returned server go to that
// namespace.
func (b *OpenBao) Within(namespace string) (*OpenBao, error) {
	if _, err := b.Ask("POST", "sys/namespaces/"+namespace, nil); err != nil {
		return nil, err
	}
	within := *b
	within.prefix = b.prefix + namespace + "/"
	return &within, within.mount()
}

func (b *OpenBao) mount() error {
	for path, kind := range map[string]string{"sys/mounts/transit": "transit", "sys/auth/approle": "approle"} {
		if _, err := b.Ask("POST", path, map[string]any{"type": kind}); err != nil {
			return err
		}
	}
	return nil
}

// untilAnswers waits until it answers, even if it is sealed. In development mode it makes its authority first.
func (b *OpenBao) untilAnswers() error {
	return b.Until(func() error {
		var err error
		if b.HTTP == nil {
			if b.HTTP, err = trusting(b.CAFile); err != nil {
				return err
			}
		}
		_, err = b.Ask("GET", "sys/seal-status", nil)
		return err
	})
}

func (b *OpenBao) untilServes() error {
	return b.Until(func() error {
		_, err := b.Ask("GET", fmt.Sprintf("sys/health?standbyok=%t", b.standsBy), nil)
		return err
	})
}

func (b *OpenBao) initialise() error {
	var keys struct {
		Keys  []string `json:"keys"`
		Token string   `json:"root_token"`
	}
	if err := b.send("PUT", "sys/init", map[string]any{"secret_shares": 1, "secret_threshold": 1}, &keys); err != nil {
		return err
	}
	if len(keys.Keys) != 1 {
		return errors.New("no key to unseal it")
	}
	b.Token, b.unseal = keys.Token, keys.Keys[0]
	return b.Unseal()
}

// Ask sends one request of the root user and returns the data of the answer.
func (b *OpenBao) Ask(method, path string, body map[string]any) (map[string]any, error) {
	var answer struct{ Data map[string]any }
	err := b.send(method, path, body, &answer)
	return answer.Data, err
}

// As returns the server with another token.
func (b *OpenBao) As(token string) *OpenBao {
	return &OpenBao{Address: b.Address, HTTP: b.HTTP, Token: token, prefix: b.prefix}
}

// LogIn logs in at an auth mount, and returns the token.
func (b *OpenBao) LogIn(mount string, credentials map[string]any) (string, error) {
	return b.newToken("auth/"+mount+"/login", credentials)
}

// LogInAs returns a token with only this policy.
func (b *OpenBao) LogInAs(policy string) (string, error) {
	return b.newToken("auth/token/create", map[string]any{
		"policies": []string{policy}, "no_default_policy": true, "ttl": "10m",
	})
}

// NewToken makes a token with these settings.
func (b *OpenBao) NewToken(settings map[string]any) (string, error) {
	return b.newToken("auth/token/create", settings)
}

// RevokeSelf ends the token with which the server is asked.
func (b *OpenBao) RevokeSelf() error {
	_, err := b.Ask("POST", "auth/token/revoke-self", nil)
	return err
}

func (b *OpenBao) newToken(path string, body map[string]any) (string, error) {
	var answer struct {
		Auth struct {
			ClientToken string `json:"client_token"`
		}
	}
	err := b.send("POST", path, body, &answer)
	return answer.Auth.ClientToken, err
}

// Wrap sends a request as Ask does, and returns a token that wraps the answer for a minute.
func (b *OpenBao) Wrap(method, path string, body map[string]any) (string, error) {
	var answer struct {
		WrapInfo struct{ Token string } `json:"wrap_info"`
	}
	err := b.send(method, path, body, &answer, "X-Vault-Wrap-TTL", "60")
	return answer.WrapInfo.Token, err
}

// send sends a request with further headers, given as names and values.
func (b *OpenBao) send(method, path string, body map[string]any, answer any, headers ...string) error {
	payload, err := json.Marshal(body)
	if err != nil {
		return err
	}
	request, err := http.NewRequest(method, "https://"+b.Address+"/v1/"+b.prefix+path, bytes.NewReader(payload))
	if err != nil {
		return err
	}
	request.Header.Set("X-Vault-Token", b.Token)
	for pair := range slices.Chunk(headers, 2) {
		request.Header.Set(pair[0], pair[1])
	}
	response, err := b.HTTP.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil || response.StatusCode >= 300 {
		return fmt.Errorf("%s %s: %s %s %w", method, path, response.Status, text, err)
	}
	if len(text) == 0 {
		return nil
	}
	return json.Unmarshal(text, answer)
}
