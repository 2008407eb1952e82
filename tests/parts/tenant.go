package parts

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// Tenant is a key of an OpenBao and a role that may use it.
type Tenant struct {
	Bao *OpenBao
	// Mount is the mount of the Transit engine.
	Mount                 string
	Key, RoleID, SecretID string
	// SecretIDFile holds the secret ID.
	SecretIDFile string
}

// UseOfKey has the rights of the minimal policy.
var UseOfKey = []string{"read keys", "update encrypt", "update decrypt"}

// NewTenant makes a role with exactly these rights to a key. It does not make the key. It writes the secret ID to
// a file in a folder. A token lives for the time to live, and with renewals at most twice as long.
func (b *OpenBao) NewTenant(key, dir string, seconds int, grants ...string) (*Tenant, error) {
	return b.NewTenantOf("transit", key, dir, seconds, grants...)
}

// NewTenantOf is NewTenant for a key in another mount.
func (b *OpenBao) NewTenantOf(mount, key, dir string, seconds int, grants ...string) (*Tenant, error) {
	n := &Tenant{Bao: b, Mount: mount, Key: key, SecretIDFile: filepath.Join(dir, "secret-id")}
	if err := n.Allow(grants...); err != nil {
		return nil, err
	}
	if err := n.MakeRole(map[string]any{"token_ttl": seconds, "token_max_ttl": 2 * seconds}); err != nil {
		return nil, err
	}
	roleID, err := b.Ask("GET", n.role()+"/role-id", nil)
	if err != nil {
		return nil, err
	}
	n.RoleID = roleID["role_id"].(string)
	if n.SecretID, err = n.NewSecretID(); err != nil {
		return nil, err
	}
	return n, n.WriteSecretID(n.SecretID)
}

func (n *Tenant) role() string { return "auth/approle/role/" + n.Key }

// MakeRole makes its role, or changes it.
func (n *Tenant) MakeRole(settings map[string]any) error {
	all := map[string]any{"token_policies": n.Key}
	maps.Copy(all, settings)
	_, err := n.Bao.Ask("POST", n.role(), all)
	return err
}

// DeleteRole deletes its role.
func (n *Tenant) DeleteRole() error {
	_, err := n.Bao.Ask("DELETE", n.role(), nil)
	return err
}

// NewSecretID returns a further secret ID of its role.
func (n *Tenant) NewSecretID() (string, error) {
	made, err := n.Bao.Ask("POST", n.role()+"/secret-id", nil)
	if err != nil {
		return "", err
	}
	return made["secret_id"].(string), nil
}

// DestroySecretID destroys a secret ID of its role.
func (n *Tenant) DestroySecretID(secretID string) error {
	_, err := n.Bao.Ask("POST", n.role()+"/secret-id/destroy", map[string]any{"secret_id": secretID})
	return err
}

// RevokeTokens revokes all tokens of its role, and returns their number.
func (n *Tenant) RevokeTokens() (revoked int, err error) {
	accessors, err := n.Bao.Ask("LIST", "auth/token/accessors", nil)
	if err != nil {
		return 0, err
	}
	keys, _ := accessors["keys"].([]any)
	for _, accessor := range keys {
		about, err := n.Bao.Ask("POST", "auth/token/lookup-accessor", map[string]any{"accessor": accessor})
		// The token may have expired since the list was read.
		if err != nil {
			continue
		}
		if policies, _ := about["policies"].([]any); !slices.Contains(policies, any(n.Key)) {
			continue
		}
		_, err = n.Bao.Ask("POST", "auth/token/revoke-accessor", map[string]any{"accessor": accessor})
		// This token may have expired too. OpenBao may list an accessor after the end of its token.
		if err != nil && strings.Contains(err.Error(), "token not found") {
			continue
		}
		if err != nil {
			return revoked, err
		}
		revoked++
	}
	return revoked, nil
}

// MakeKey makes the key with the settings that a plugin needs.
func (n *Tenant) MakeKey() error {
	_, err := n.Bao.Ask("POST", n.Mount+"/keys/"+n.Key, map[string]any{"type": "aes256-gcm96"})
	return err
}

// Rotate adds a version to the key.
func (n *Tenant) Rotate() error {
	_, err := n.Bao.Ask("POST", n.Mount+"/keys/"+n.Key+"/rotate", nil)
	return err
}

// Allow sets the rights of the role to its key.
func (n *Tenant) Allow(grants ...string) error {
	var policy strings.Builder
	for _, grant := range grants {
		capability, path, _ := strings.Cut(grant, " ")
		fmt.Fprintf(&policy, "path %q { capabilities = [%q] }\n", n.Mount+"/"+path+"/"+n.Key, capability)
	}
	_, err := n.Bao.Ask("PUT", "sys/policies/acl/"+n.Key, map[string]any{"policy": policy.String()})
	return err
}

// Forbid removes its policy, so that the role has no rights.
func (n *Tenant) Forbid() error {
	_, err := n.Bao.Ask("DELETE", "sys/policies/acl/"+n.Key, nil)
	return err
}

// WriteSecretID replaces the secret ID in its file.
func (n *Tenant) WriteSecretID(secretID string) error {
	return os.WriteFile(n.SecretIDFile, []byte(secretID+"\n"), 0o600)
}

// Flags returns the flags of a plugin that uses the tenant.
func (n *Tenant) Flags() []string { return n.FlagsVia(n.Bao.Address) }

// FlagsVia returns the flags of a plugin that reaches the server by other addresses.
func (n *Tenant) FlagsVia(addresses ...string) []string {
	return []string{
		"--vault-address=https://" + strings.Join(addresses, ",https://"),
		"--tls-ca-file=" + n.Bao.CAFile,
		"--vault-key-path=" + n.Mount + "/keys/" + n.Key,
		"--approle-role-id=" + n.RoleID,
		"--approle-secret-id-path=" + n.SecretIDFile,
	}
}
