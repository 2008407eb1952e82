package parts

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// Tenant is a key of an OpenBao, and a role that may use it.
type Tenant struct {
	Bao                   *OpenBao
	Key, RoleID, SecretID string
	// SecretIDFile holds the secret ID.
	SecretIDFile string
}

// UseOfKey is what the least policy grants.
var UseOfKey = []string{"read keys", "update encrypt", "update decrypt"}

// NewTenant makes a role that may do just this with a key, and not the key. Its secret ID is
// written to a file in a folder. A token lives for the time to live, and at most twice as long.
func (b *OpenBao) NewTenant(key, dir string, seconds int, grants ...string) (*Tenant, error) {
	n := &Tenant{Bao: b, Key: key, SecretIDFile: filepath.Join(dir, "secret-id")}
	if err := n.Allow(grants...); err != nil {
		return nil, err
	}
	role := "auth/approle/role/" + key
	if _, err := b.Ask("POST", role, map[string]any{
		"token_policies": key, "token_ttl": seconds, "token_max_ttl": 2 * seconds,
	}); err != nil {
		return nil, err
	}
	roleID, err := b.Ask("GET", role+"/role-id", nil)
	if err != nil {
		return nil, err
	}
	secretID, err := b.Ask("POST", role+"/secret-id", nil)
	if err != nil {
		return nil, err
	}
	n.RoleID, n.SecretID = roleID["role_id"].(string), secretID["secret_id"].(string)
	return n, n.WriteSecretID(n.SecretID)
}

// MakeKey makes the key, as a plugin needs it.
func (n *Tenant) MakeKey() error {
	_, err := n.Bao.Ask("POST", "transit/keys/"+n.Key, map[string]any{"type": "aes256-gcm96"})
	return err
}

// Rotate adds a version to the key.
func (n *Tenant) Rotate() error {
	_, err := n.Bao.Ask("POST", "transit/keys/"+n.Key+"/rotate", nil)
	return err
}

// Allow makes this all that the role may do with its key, from now on.
func (n *Tenant) Allow(grants ...string) error {
	var policy strings.Builder
	for _, grant := range grants {
		capability, path, _ := strings.Cut(grant, " ")
		fmt.Fprintf(&policy, "path %q { capabilities = [%q] }\n", "transit/"+path+"/"+n.Key, capability)
	}
	_, err := n.Bao.Ask("PUT", "sys/policies/acl/"+n.Key, map[string]any{"policy": policy.String()})
	return err
}

// WriteSecretID replaces the secret ID in its file.
func (n *Tenant) WriteSecretID(secretID string) error {
	return os.WriteFile(n.SecretIDFile, []byte(secretID+"\n"), 0o600)
}

// Flags are those for a plugin.
func (n *Tenant) Flags() []string { return n.FlagsVia(n.Bao.Address) }

// FlagsVia are the flags for a plugin that reaches the server by another address.
func (n *Tenant) FlagsVia(address string) []string {
	return []string{
		"--vault-address=https://" + address,
		"--tls-ca-file=" + n.Bao.CAFile,
		"--vault-key-path=transit/keys/" + n.Key,
		"--approle-role-id=" + n.RoleID,
		"--approle-secret-id-path=" + n.SecretIDFile,
	}
}
