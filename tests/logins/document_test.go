package logins_test

import (
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"vault-kube-kms.test/parts"
	"vault-kube-kms.test/suite"
)

// All that docs/authentication.md tells one to type works as it is told, on a server of its own.
func TestTheDocumentOnAuthentication(t *testing.T) {
	t.Parallel()
	bao := suite.Needed(t, "BAO")
	dir := shortDir(t)
	server, err := parts.StartDevOpenBao(parts.Way{}, bao, dir)
	must(t, err)
	t.Cleanup(server.Kill)
	for _, mount := range []string{"sys/mounts/transit", "sys/auth/approle"} {
		ask(t, server, "DELETE", mount, nil)
	}
	put := func(name, text string) { must(t, os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600)) }
	by := newIssuer(t)
	put("issuer.pem", by.publicKey(t))
	put("jwt", by.sign(t, time.Hour, map[string]any{"sub": "node-1", "aud": "vault"}))
	reviewer := newReviewer(t, by)
	put("management-ca.pem", reviewer.authority)
	put("service-account-token", by.sign(t, time.Hour, serviceAccount))
	spiffe := newIdentity(t)
	bundle, err := spire.Use(t).X509Bundle()
	must(t, err)
	put("spire-bundle.pem", bundle)
	keys, err := spire.Use(t).JWTKeys()
	must(t, err)
	put("spire-jwt.pem", strings.Join(keys, "\n"))
	authority, err := parts.NewAuthority(dir, 365)
	must(t, err)
	must(t, os.Rename(authority.File, filepath.Join(dir, "nodes-ca.pem")))
	pair, err := authority.IssueAs(dir, func(c *x509.Certificate) {
		c.Subject.CommonName = "node-1"
		c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
	})
	must(t, err)
	here := strings.NewReplacer(
		"https://vault.example:8200\"", "https://"+server.Address+"\" ca_cert = \""+server.CAFile+"\"",
		"https://management.example:6443", reviewer.URL,
		"/etc/vault-kube-kms/node.pem", pair.CertFile, "/etc/vault-kube-kms/node-key.pem", pair.KeyFile,
		"unix:///run/spire/agent.sock", "unix://"+spiffe.Socket,
		"/etc/vault-kube-kms/", dir+"/", "/run/identity/", dir+"/", "/run/vault-kube-kms/", dir+"/",
		"deploy/vault/", filepath.Join(dir, "deploy/vault")+"/",
	)
	deploy, err := filepath.Abs("../../deploy")
	must(t, err)
	must(t, os.Symlink(deploy, filepath.Join(dir, "deploy")))
	provider, err := filepath.Abs(suite.Needed(t, "PROVIDER"))
	must(t, err)
	// A warning of check is no failure here: the files of the test are on a disk.
	prelude := fmt.Sprintf(`set -e
export HOME=%[1]s
vault() { env BAO_ADDR=https://%[2]s BAO_CACERT=%[3]s BAO_TOKEN=%[4]s %[5]s "$@"; }
vault-kube-kms() {
	%[6]s "$@" --vault-address=https://%[2]s --tls-ca-file=%[3]s --vault-key-path=transit/keys/kubernetes \
		--listen-address=unix://%[1]s/kms.sock || [ $? = 1 ]
}
`, dir, server.Address, server.CAFile, server.Token, bao, provider)
	text, err := os.ReadFile("../../docs/authentication.md")
	must(t, err)
	agent := regexp.MustCompile("(?s)\n```hcl\n(.*?)```").FindStringSubmatch(string(text))[1]
	for _, block := range suite.Consoles(t, "authentication.md") {
		if strings.Contains(block[0].Command, "--token-file") {
			startAgent(t, bao, dir, here.Replace(agent))
		}
		suite.Type(t, "authentication.md", block, prelude, here)
	}
}

// startAgent starts an agent and waits for its token.
func startAgent(t *testing.T, bao, dir, config string) {
	t.Helper()
	file := filepath.Join(dir, "agent.hcl")
	must(t, os.WriteFile(file, []byte(config), 0o600))
	process, err := parts.Way{}.Start("agent", []string{bao, "agent", "-config=" + file}, "HOME="+dir)
	must(t, err)
	t.Cleanup(process.Kill)
	if !parts.Eventually(startBound, func() bool { _, err := os.Stat(filepath.Join(dir, "token")); return err == nil }) {
		t.Fatalf("the agent writes no token: %s", process.Printed())
	}
}

// newIdentity starts an agent that gives the identity of the document to each process of this user.
func newIdentity(t *testing.T) *parts.SpireAgent {
	t.Helper()
	agent, err := spire.Use(t).NewAgent(shortDir(t))
	must(t, err)
	_, err = agent.MakeEntry("/kms", 600, 600)
	must(t, err)
	must(t, agent.Start())
	t.Cleanup(agent.Kill)
	return agent
}

// pemOf is a certificate as text.
func pemOf(certificate *x509.Certificate) string {
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: certificate.Raw}))
}
