// Package tofu_test applies the module of deploy/vault/terraform to a real server.
package tofu_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"vault-kube-kms.test/parts"
	"vault-kube-kms.test/suite"
)

// The names for the module. None of them is its default.
const (
	mount, key, role, authMount = "kms-transit", "cluster", "kms-node", "kms-approle"
	issuer, audience, subject   = "https://issuer.example", "kms", "system:node:n1"
)

// main is a configuration that uses the module as an operator would.
const main = `
variable "public_key" { type = string }
variable "authority" { type = string }

module "kms" {
  source      = "./vault/terraform"
  mount       = %q
  key         = %q
  role        = %q
  auth_mount  = %q
  jwt         = { issuer = %q, audience = %q, subject = %q, public_keys = [var.public_key] }
  certificate = { authority = var.authority, common_names = ["n1"] }
}

output "flags" { value = module.kms.flags }
`

// workspace is a folder in which tofu runs as the root user of a server.
type workspace struct {
	dir       string
	variables []string
}

func newWorkspace(t *testing.T, bao *parts.OpenBao, variables ...string) workspace {
	t.Helper()
	dir := suite.ShortDir(t)
	suite.Must(t, os.CopyFS(filepath.Join(dir, "vault"), os.DirFS("../../deploy/vault")))
	text := fmt.Sprintf(main, mount, key, role, authMount, issuer, audience, subject)
	suite.Must(t, os.WriteFile(filepath.Join(dir, "main.tf"), []byte(text), 0o600))

	const version = "3.3.1"
	mirror := filepath.Join(dir, "mirror/registry.opentofu.org/hashicorp/vault", version, runtime.GOOS+"_"+runtime.GOARCH)
	suite.Must(t, os.MkdirAll(mirror, 0o700))
	program := filepath.Join(mirror, "terraform-provider-vault_v"+version)
	suite.Must(t, os.Symlink(suite.Needed(t, "VAULT_PROVIDER"), program))
	config := filepath.Join(dir, "tofurc")
	text = fmt.Sprintf("provider_installation {\n  filesystem_mirror { path = %q }\n}\n", filepath.Join(dir, "mirror"))
	suite.Must(t, os.WriteFile(config, []byte(text), 0o600))
	return workspace{dir, append(variables,
		"HOME="+dir, "TF_CLI_CONFIG_FILE="+config, "CHECKPOINT_DISABLE=1", "TF_INPUT=0",
		"VAULT_ADDR=https://"+bao.Address, "VAULT_CACERT="+bao.CAFile, "VAULT_TOKEN="+bao.Token)}
}

// run runs tofu and returns its output.
func (w workspace) run(t *testing.T, args ...string) (string, error) {
	t.Helper()
	command := parts.Command(append([]string{suite.Needed(t, "TOFU")}, args...)...)
	command.Dir, command.Env = w.dir, append(command.Env, w.variables...)
	out, err := command.CombinedOutput()
	return string(out), err
}

func (w workspace) must(t *testing.T, args ...string) string {
	t.Helper()
	out, err := w.run(t, args...)
	if err != nil {
		t.Fatalf("tofu %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return out
}

// TestTheModuleMakesWhatIsNeeded expects that the module makes all that the program needs, that each of its roles
// may only use the key, that a plan after a rotation has no changes, and that the module does not destroy the
// key.
func TestTheModuleMakesWhatIsNeeded(t *testing.T) {
	bao, err := parts.StartDevOpenBao(parts.Way{}, suite.Needed(t, "BAO"), suite.ShortDir(t))
	suite.Must(t, err)
	t.Cleanup(bao.Kill)
	node, authority := clientCertificate(t)
	signer, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	suite.Must(t, err)
	w := newWorkspace(t, bao, "TF_VAR_public_key="+publicKey(t, signer), "TF_VAR_authority="+authority)

	w.must(t, "fmt", "-check", "-diff", "vault/terraform")
	w.must(t, "init", "-no-color")
	w.must(t, "validate", "-no-color")
	began := time.Now()
	w.must(t, "apply", "-auto-approve", "-no-color")
	t.Logf("applied in %.1f s", time.Since(began).Seconds())
	// The exit code is 2 if the plan has changes.
	w.must(t, "plan", "-detailed-exitcode", "-no-color")

	secretID, err := bao.Ask("POST", "auth/"+authMount+"/role/"+role+"/secret-id", nil)
	suite.Must(t, err)
	requireChecked(t, bao, w, secretID["secret_id"].(string))

	roleID, err := bao.Ask("GET", "auth/"+authMount+"/role/"+role+"/role-id", nil)
	suite.Must(t, err)
	withCertificate := *bao
	withCertificate.HTTP = node
	for _, login := range []struct {
		mount       string
		as          *parts.OpenBao
		credentials map[string]any
	}{
		{authMount, bao, map[string]any{"role_id": roleID["role_id"], "secret_id": secretID["secret_id"]}},
		{"jwt", bao, map[string]any{"role": role, "jwt": signed(t, signer, subject)}},
		{"cert", &withCertificate, map[string]any{"name": role}},
	} {
		token, err := login.as.LogIn(login.mount, login.credentials)
		suite.Must(t, err)
		suite.RequireJustTheUse(t, bao, token, mount, key, role)
	}
	if _, err := bao.LogIn("jwt", map[string]any{"role": role, "jwt": signed(t, signer, "system:node:n2")}); err == nil {
		t.Error("another subject may log in")
	}

	_, err = bao.Ask("POST", mount+"/keys/"+key+"/rotate", nil)
	suite.Must(t, err)
	_, err = bao.Ask("POST", mount+"/keys/"+key+"/config", map[string]any{"min_decryption_version": 2})
	suite.Must(t, err)
	w.must(t, "plan", "-detailed-exitcode", "-no-color")

	if out, err := w.run(t, "destroy", "-auto-approve", "-no-color"); err == nil || !strings.Contains(out, "prevent_destroy") {
		t.Errorf("destroy: %v\n%s", err, out)
	}
	made, err := bao.Ask("GET", mount+"/keys/"+key, nil)
	suite.Must(t, err)
	if made["latest_version"] != 2.0 || made["exportable"] != false || made["deletion_allowed"] != false {
		t.Errorf("the key is %v", made)
	}
}

// requireChecked requires that `check` passes with the flags of the module.
func requireChecked(t *testing.T, bao *parts.OpenBao, w workspace, secretID string) {
	t.Helper()
	var flags []string
	suite.Must(t, json.Unmarshal([]byte(w.must(t, "output", "-json", "flags")), &flags))
	file := filepath.Join(w.dir, "secret-id")
	suite.Must(t, os.WriteFile(file, []byte(secretID), 0o600))
	args := append([]string{suite.Needed(t, "PROVIDER"), "check", "--health-port=0", "--metrics-port=0",
		"--listen-address=unix://" + filepath.Join(w.dir, "kms.sock"), "--vault-address=https://" + bao.Address,
		"--tls-ca-file=" + bao.CAFile, "--approle-secret-id-path=" + file}, flags...)
	if out, err := parts.Command(args...).CombinedOutput(); err != nil {
		t.Errorf("check: %v\n%s", err, out)
	}
}

// clientCertificate returns a client with the certificate of a node, and the authority of this certificate in
// PEM.
func clientCertificate(t *testing.T) (node *http.Client, authority string) {
	t.Helper()
	dir := suite.ShortDir(t)
	made, err := parts.NewAuthority(dir, 1)
	suite.Must(t, err)
	issued, err := made.IssueAs(dir, func(c *x509.Certificate) {
		c.Subject = pkix.Name{CommonName: "n1"}
		c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
	})
	suite.Must(t, err)
	pair, err := tls.LoadX509KeyPair(issued.CertFile, issued.KeyFile)
	suite.Must(t, err)
	text, err := os.ReadFile(made.File)
	suite.Must(t, err)
	// The other clients verify the server. Here only the client certificate matters.
	trust := &tls.Config{Certificates: []tls.Certificate{pair}, InsecureSkipVerify: true}
	return &http.Client{Transport: &http.Transport{TLSClientConfig: trust}, Timeout: time.Minute}, string(text)
}

func publicKey(t *testing.T, signer *ecdsa.PrivateKey) string {
	t.Helper()
	der, err := x509.MarshalPKIXPublicKey(&signer.PublicKey)
	suite.Must(t, err)
	return string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}))
}

// signed returns a JWT for a subject, valid for a minute.
func signed(t *testing.T, signer *ecdsa.PrivateKey, subject string) string {
	t.Helper()
	encode := base64.RawURLEncoding.EncodeToString
	claims, err := json.Marshal(map[string]any{
		"iss": issuer, "aud": audience, "sub": subject,
		"iat": time.Now().Unix(), "exp": time.Now().Add(time.Minute).Unix(),
	})
	suite.Must(t, err)
	text := encode([]byte(`{"alg":"ES256","typ":"JWT"}`)) + "." + encode(claims)
	hash := sha256.Sum256([]byte(text))
	r, s, err := ecdsa.Sign(rand.Reader, signer, hash[:])
	suite.Must(t, err)
	signature := make([]byte, 64)
	r.FillBytes(signature[:32])
	s.FillBytes(signature[32:])
	return text + "." + encode(signature)
}
