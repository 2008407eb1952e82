package logins_test

import (
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"vault-kube-kms.test/parts"
	"vault-kube-kms.test/suite"
)

// login is a method of logging in, set up for a key of its own.
type login struct {
	tenant *parts.Tenant
	// flags are those of the method.
	flags []string
	// place is what check and the status page call the login.
	place string
	// file holds the credential. Empty if the method has none.
	file string
	// good makes a valid credential.
	good func(t *testing.T) string
	// bad makes a credential that the server refuses, and told is what Status says then.
	bad  func(t *testing.T) string
	told string
	// makeRole makes the role, with a lifetime of its tokens in seconds. deleteRole deletes it.
	makeRole   func(t *testing.T, seconds int)
	deleteRole func(t *testing.T)
	// noRole is what Status says without the role.
	noRole string
	// endsWithRole says that the credential is not valid for a role that is made again.
	endsWithRole bool
}

// allFlags are the flags of a plugin that reaches the server at an address.
func (l *login) allFlags(address string) []string {
	return append([]string{
		"--vault-address=https://" + address,
		"--tls-ca-file=" + l.tenant.Bao.CAFile,
		"--vault-key-path=" + l.tenant.Mount + "/keys/" + l.tenant.Key,
	}, l.flags...)
}

// write puts a credential into the file.
func (l *login) write(t *testing.T, credential string) {
	t.Helper()
	if l.file != "" {
		must(t, os.WriteFile(l.file, []byte(credential+"\n"), 0o600))
	}
}

// methods are all methods, by name.
var methods = map[string]func(t *testing.T) *login{
	"approle":     approle,
	"cert":        cert,
	"jwt":         jwt,
	"kubernetes":  kubernetes,
	"spiffe jwt":  spiffe("jwt"),
	"spiffe x509": spiffe("x509"),
	"token-file":  tokenFile,
}

func newTenant(t *testing.T) *parts.Tenant {
	t.Helper()
	return suite.NewTenant(t, shared.Use(t))
}

func approle(t *testing.T) *login {
	n := newTenant(t)
	l := &login{
		tenant: n, file: n.SecretIDFile, place: "auth/approle (approle)",
		flags: []string{"--approle-role-id=" + n.RoleID, "--approle-secret-id-path=" + n.SecretIDFile},
		bad:   func(*testing.T) string { return "11111111-2222-3333-4444-555555555555" },
		told:  "does not know this pair of role ID and secret ID",
		makeRole: func(t *testing.T, seconds int) {
			must(t, n.MakeRole(map[string]any{
				"role_id": n.RoleID, "token_ttl": seconds, "token_max_ttl": 2 * seconds,
			}))
		},
		deleteRole: func(t *testing.T) { must(t, n.DeleteRole()) },
		noRole:     "does not know this pair", endsWithRole: true,
	}
	l.good = func(t *testing.T) string {
		id, err := n.NewSecretID()
		must(t, err)
		return id
	}
	return l
}

// issuer signs JWTs.
type issuer struct{ key *rsa.PrivateKey }

func newIssuer(t *testing.T) *issuer {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	must(t, err)
	return &issuer{key}
}

func (i *issuer) publicKey(t *testing.T) string {
	t.Helper()
	der, err := x509.MarshalPKIXPublicKey(&i.key.PublicKey)
	must(t, err)
	return string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}))
}

// sign returns a JWT with these claims, which begins now and ends after some time.
func (i *issuer) sign(t *testing.T, life time.Duration, claims map[string]any) string {
	t.Helper()
	now := time.Now()
	all := map[string]any{"iat": now.Add(-time.Minute).Unix(), "exp": now.Add(life).Unix(), "jti": parts.RandomName()}
	for name, value := range claims {
		all[name] = value
	}
	payload, err := json.Marshal(all)
	must(t, err)
	text := base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"RS256","typ":"JWT"}`)) + "." +
		base64.RawURLEncoding.EncodeToString(payload)
	digest := sha256.Sum256([]byte(text))
	signature, err := rsa.SignPKCS1v15(rand.Reader, i.key, crypto.SHA256, digest[:])
	must(t, err)
	return text + "." + base64.RawURLEncoding.EncodeToString(signature)
}

func jwt(t *testing.T) *login {
	n, by := newTenant(t), newIssuer(t)
	mount := "jwt-" + n.Key
	ask(t, n.Bao, "POST", "sys/auth/"+mount, map[string]any{"type": "jwt"})
	ask(t, n.Bao, "POST", "auth/"+mount+"/config", map[string]any{"jwt_validation_pubkeys": []string{by.publicKey(t)}})
	claims := map[string]any{"iss": "https://issuer.test", "sub": "node-1", "aud": "vault"}
	file := filepath.Join(shortDir(t), "jwt")
	return &login{
		tenant: n, file: file, place: "auth/" + mount + " (jwt)",
		flags: []string{"--auth-method=jwt", "--auth-mount=" + mount, "--jwt-role=kms", "--jwt-path=" + file},
		good:  func(t *testing.T) string { return by.sign(t, time.Hour, claims) },
		// The server allows 150 s for clocks that differ.
		bad:  func(t *testing.T) string { return by.sign(t, -10*time.Minute, claims) },
		told: `the JWT has expired; by its own claims and this node's clock, the JWT of issuer "https://issuer.test" for audience "vault" expired 6`,
		makeRole: func(t *testing.T, seconds int) {
			ask(t, n.Bao, "POST", "auth/"+mount+"/role/kms", map[string]any{
				"role_type": "jwt", "user_claim": "sub", "bound_audiences": []string{"vault"}, "bound_subject": "node-1",
				"token_policies": n.Key, "token_ttl": seconds, "token_max_ttl": 2 * seconds,
			})
		},
		deleteRole: func(t *testing.T) { ask(t, n.Bao, "DELETE", "auth/"+mount+"/role/kms", nil) },
		noRole:     "has no such role",
	}
}

// cert has the chain and the key of a client certificate in one file.
func cert(t *testing.T) *login {
	n, dir := newTenant(t), shortDir(t)
	mount := "cert-" + n.Key
	ask(t, n.Bao, "POST", "sys/auth/"+mount, map[string]any{"type": "cert"})
	issue := func(t *testing.T, by *parts.Authority) string {
		t.Helper()
		pair, err := by.IssueAs(shortDir(t), func(c *x509.Certificate) {
			c.Subject.CommonName = "node-1"
			c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
		})
		must(t, err)
		certificate, err := os.ReadFile(pair.CertFile)
		must(t, err)
		key, err := os.ReadFile(pair.KeyFile)
		must(t, err)
		return string(certificate) + string(key)
	}
	authority, err := parts.NewAuthority(dir, 365)
	must(t, err)
	trusted, err := os.ReadFile(authority.File)
	must(t, err)
	file := filepath.Join(dir, "pair.pem")
	return &login{
		tenant: n, file: file, place: "auth/" + mount + " (cert)",
		flags: []string{"--auth-method=cert", "--auth-mount=" + mount, "--cert-role=kms", "--tls-client-cert-file=" + file},
		good:  func(t *testing.T) string { return issue(t, authority) },
		bad: func(t *testing.T) string {
			other, err := parts.NewAuthority(shortDir(t), 365)
			must(t, err)
			return issue(t, other)
		},
		told: "does not accept the client certificate",
		makeRole: func(t *testing.T, seconds int) {
			ask(t, n.Bao, "POST", "auth/"+mount+"/certs/kms", map[string]any{
				"certificate": string(trusted), "allowed_common_names": "node-1",
				"token_policies": n.Key, "token_ttl": seconds, "token_max_ttl": 2 * seconds,
			})
		},
		deleteRole: func(t *testing.T) { ask(t, n.Bao, "DELETE", "auth/"+mount+"/certs/kms", nil) },
		noRole:     "does not accept the client certificate",
	}
}

// serviceAccount is what the token of a service account claims.
var serviceAccount = map[string]any{
	"iss": "https://kubernetes.default.svc", "sub": "system:serviceaccount:kms:provider",
	"aud": []string{"https://kubernetes.default.svc"},
	"kubernetes.io": map[string]any{
		"namespace": "kms", "serviceaccount": map[string]any{"name": "provider", "uid": "u-1"},
	},
}

// reviewer is an API server that reviews tokens.
type reviewer struct {
	*httptest.Server
	// authority is that of its certificate, as PEM.
	authority string
}

// newReviewer starts a reviewer that accepts what an issuer signed.
func newReviewer(t *testing.T, by *issuer) reviewer {
	t.Helper()
	server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var review struct {
			Spec struct {
				Token     string
				Audiences []string
			}
		}
		_ = json.NewDecoder(r.Body).Decode(&review)
		accepted := by.verifies(review.Spec.Token)
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(map[string]any{
			"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview",
			"status": map[string]any{
				"authenticated": accepted, "audiences": review.Spec.Audiences,
				"user": map[string]any{
					"username": "system:serviceaccount:kms:provider", "uid": "u-1",
					"groups": []string{"system:serviceaccounts", "system:serviceaccounts:kms"},
				},
			},
		})
	}))
	t.Cleanup(server.Close)
	return reviewer{server, pemOf(server.Certificate())}
}

// kubernetes has a reviewer of tokens that accepts what one issuer signed.
func kubernetes(t *testing.T) *login {
	n, by := newTenant(t), newIssuer(t)
	reviewer := newReviewer(t, by)
	mount := "kubernetes-" + n.Key
	ask(t, n.Bao, "POST", "sys/auth/"+mount, map[string]any{"type": "kubernetes"})
	ask(t, n.Bao, "POST", "auth/"+mount+"/config", map[string]any{
		"kubernetes_host": reviewer.URL, "disable_local_ca_jwt": true,
		"kubernetes_ca_cert": reviewer.authority,
	})
	file := filepath.Join(shortDir(t), "token")
	return &login{
		tenant: n, file: file, place: "auth/" + mount + " (kubernetes)",
		flags: []string{
			"--auth-method=kubernetes", "--auth-mount=" + mount, "--kubernetes-role=kms", "--kubernetes-jwt-path=" + file,
		},
		good: func(t *testing.T) string { return by.sign(t, time.Hour, serviceAccount) },
		bad:  func(t *testing.T) string { return newIssuer(t).sign(t, time.Hour, serviceAccount) },
		told: "the reviewing API server rejects the JWT or cannot be reached",
		makeRole: func(t *testing.T, seconds int) {
			ask(t, n.Bao, "POST", "auth/"+mount+"/role/kms", map[string]any{
				"bound_service_account_names": "provider", "bound_service_account_namespaces": "kms",
				"token_policies": n.Key, "token_ttl": seconds, "token_max_ttl": 2 * seconds,
			})
		},
		deleteRole: func(t *testing.T) { ask(t, n.Bao, "DELETE", "auth/"+mount+"/role/kms", nil) },
		noRole:     "has no such role",
	}
}

// verifies says whether the issuer signed a JWT.
func (i *issuer) verifies(jwt string) bool {
	at := strings.LastIndexByte(jwt, '.')
	if at < 0 {
		return false
	}
	signature, err := base64.RawURLEncoding.DecodeString(jwt[at+1:])
	digest := sha256.Sum256([]byte(jwt[:at]))
	return err == nil && rsa.VerifyPKCS1v15(&i.key.PublicKey, crypto.SHA256, digest[:], signature) == nil
}

// tokenFile has a token that something else writes. It has no role.
func tokenFile(t *testing.T) *login {
	n := newTenant(t)
	file := filepath.Join(shortDir(t), "token")
	seconds := 60
	token := func(t *testing.T) string {
		made, err := n.Bao.NewToken(map[string]any{"policies": []string{n.Key}, "ttl": seconds})
		must(t, err)
		return made
	}
	return &login{
		tenant: n, file: file, place: file,
		flags: []string{"--auth-method=token-file", "--token-file=" + file},
		good:  token,
		bad: func(t *testing.T) string {
			dead := token(t)
			must(t, n.Bao.As(dead).RevokeSelf())
			return dead
		},
		told:     "does not accept the token in the file of --token-file",
		makeRole: func(_ *testing.T, ttl int) { seconds = ttl },
	}
}
