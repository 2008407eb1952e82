package suite

import (
	"testing"

	"vault-kube-kms.test/parts"
)

// NewTenant makes a key of the server, and a role that may use it, with tokens of 60 s.
func NewTenant(t *testing.T, server *parts.OpenBao) *parts.Tenant {
	t.Helper()
	tenant, err := server.NewTenant(parts.RandomName(), ShortDir(t), 60, parts.UseOfKey...)
	Must(t, err)
	Must(t, tenant.MakeKey())
	return tenant
}

// Ask sends one request of the root user, and returns the data of the answer.
func Ask(t *testing.T, server *parts.OpenBao, method, path string, body map[string]any) map[string]any {
	t.Helper()
	data, err := server.Ask(method, path, body)
	Must(t, err)
	return data
}
