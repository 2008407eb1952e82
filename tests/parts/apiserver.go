package parts

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
)

// APIServer is a kube-apiserver with one user, who may do everything.
type APIServer struct {
	*Process
	// URL is its address, CAFile the authority of its certificate, and Token the token of the user.
	URL, CAFile, Token string

	http  *http.Client
	start func() (*Process, error)
}

// NewAPIServer returns an API server that is not started yet. Its files are in a folder and its data in etcd.
// encryption is the file of its EncryptionConfiguration.
func NewAPIServer(way Way, name, program, dir string, store *Etcd, encryption string, flags ...string) (*APIServer, error) {
	certificate, err := NewCertificate(dir, 365)
	if err != nil {
		return nil, err
	}
	a := &APIServer{CAFile: certificate.CAFile, Token: RandomName()}
	if a.http, err = trusting(a.CAFile); err != nil {
		return nil, err
	}
	port := FreePort()
	a.URL = fmt.Sprintf("https://127.0.0.1:%d", port)
	tokens, accounts := filepath.Join(dir, "tokens.csv"), filepath.Join(dir, "service-accounts.pem")
	if err := os.WriteFile(tokens, []byte(a.Token+`,admin,1,"system:masters"`+"\n"), 0o600); err != nil {
		return nil, err
	}
	if err := writeNewKey(accounts); err != nil {
		return nil, err
	}
	args := append([]string{
		program, "--etcd-servers=" + store.URL,
		"--bind-address=127.0.0.1", "--advertise-address=127.0.0.1", fmt.Sprintf("--secure-port=%d", port),
		"--tls-cert-file=" + certificate.CertFile, "--tls-private-key-file=" + certificate.KeyFile,
		"--token-auth-file=" + tokens, "--authorization-mode=RBAC",
		"--service-account-issuer=https://kubernetes.default.svc",
		"--service-account-key-file=" + accounts, "--service-account-signing-key-file=" + accounts,
		"--service-cluster-ip-range=10.0.0.0/24",
		// No controller makes service accounts, and no service has endpoints.
		"--disable-admission-plugins=ServiceAccount", "--endpoint-reconciler-type=none",
		"--encryption-provider-config=" + encryption,
	}, flags...)
	a.start = func() (*Process, error) { return way.Start(name, args) }
	return a, nil
}

// ReachAPIServer returns an API server that another process started.
func ReachAPIServer(url, caFile, token string) (*APIServer, error) {
	client, err := trusting(caFile)
	return &APIServer{URL: url, CAFile: caFile, Token: token, http: client}, err
}

// Launch starts it, also again after its end, and does not wait.
func (a *APIServer) Launch() error {
	var err error
	a.Process, err = a.start()
	return err
}

// Start starts it, also again after its end, and waits until it is ready.
func (a *APIServer) Start() error {
	if err := a.Launch(); err != nil {
		return err
	}
	return a.UntilOK("/readyz")
}

// UntilOK waits until a path answers with 200.
func (a *APIServer) UntilOK(path string) error {
	err := a.Until(func() error {
		status, body, err := a.Ask("GET", path, nil)
		if err == nil && status != http.StatusOK {
			err = fmt.Errorf("%s: %d %s", path, status, body)
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("API server: %w", err)
	}
	return nil
}

// Ask sends a request and returns the status and the body of the answer.
func (a *APIServer) Ask(method, path string, body any) (int, []byte, error) {
	var payload io.Reader
	if body != nil {
		text, err := json.Marshal(body)
		if err != nil {
			return 0, nil, err
		}
		payload = bytes.NewReader(text)
	}
	request, err := http.NewRequest(method, a.URL+path, payload)
	if err != nil {
		return 0, nil, err
	}
	request.Header.Set("Authorization", "Bearer "+a.Token)
	request.Header.Set("Content-Type", "application/json")
	response, err := a.http.Do(request)
	if err != nil {
		return 0, nil, err
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	return response.StatusCode, text, err
}

// Metrics returns its present metrics.
func (a *APIServer) Metrics() (Metrics, error) {
	_, text, err := a.Ask("GET", "/metrics", nil)
	return Metrics(text), err
}

func writeNewKey(file string) error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	der, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		return err
	}
	return writePEM(file, "EC PRIVATE KEY", der)
}
