package apiserver_test

import (
	"testing"

	"vault-kube-kms.test/parts"
	"vault-kube-kms.test/suite"
)

// bao is an OpenBao server. Its requests must succeed.
type bao struct{ *parts.OpenBao }

var shared = suite.Shared[*parts.OpenBao]{Start: parts.StartDevOpenBao}

// sharedBao is the server of all tests that do not disturb it.
func sharedBao(t *testing.T) bao {
	t.Helper()
	return bao{shared.Use(t)}
}

// ownBao starts a server for a test that disturbs it.
func ownBao(t *testing.T) bao {
	t.Helper()
	b, err := parts.StartDevOpenBao(parts.Way{}, suite.Server(t), shortDir(t))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.Kill)
	return bao{b}
}

func (b bao) must(t *testing.T, method, path string, body map[string]any) map[string]any {
	t.Helper()
	data, err := b.Ask(method, path, body)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// tenant is a key, and a role that may use it.
type tenant struct {
	*parts.Tenant
	bao bao
}

// tenant makes a key, and a role with all rights that a plugin needs.
func (b bao) tenant(t *testing.T) *tenant {
	t.Helper()
	tenant := b.role(t, parts.UseOfKey...)
	must(t, tenant.MakeKey())
	return tenant
}

// role makes a role with exactly these rights to a key. It does not make the key. The tokens of the role are
// short-lived, so that they are renewed and replaced during the tests.
func (b bao) role(t *testing.T, grants ...string) *tenant {
	t.Helper()
	made, err := b.NewTenant(parts.RandomName(), shortDir(t), 60, grants...)
	must(t, err)
	return &tenant{made, b}
}

func (n *tenant) allow(t *testing.T, grants ...string) {
	t.Helper()
	must(t, n.Allow(grants...))
}

func (n *tenant) rotate(t *testing.T) {
	t.Helper()
	must(t, n.Rotate())
}
