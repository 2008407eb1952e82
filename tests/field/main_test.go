// Package field_test rebuilds what users of Vault, of its clients and of KMS plugins reported: one
// test or subtest a trial, by the trial's name. README.md lists all trials and the tests that hold
// them.
package field_test

import (
	"testing"
	"time"

	"vault-kube-kms.test/parts"
	"vault-kube-kms.test/suite"
)

// Within how long the plugin must be well again after the cause has ended.
const (
	// An outage of the keeper, or of what stands in front of it.
	outageBound = 30 * time.Second
	// A refusal of the keeper's own that is not about the pair of role ID and secret ID.
	refusalBound = 60 * time.Second
	// A name that moved, a socket file that was removed.
	moveBound = 5 * time.Second
	// A file that was corrected: it is looked at every two seconds.
	fileBound = 5 * time.Second
	// What a test adds to each of these. An overloaded machine may add more: see parts.Watch.
	slack = 3 * time.Second
)

// How long a plugin may take to start, or to name a cause, on a busy machine.
const startBound = 20 * time.Second

var (
	needed     = suite.Needed
	must       = suite.Must
	shortDir   = suite.ShortDir
	localFlags = suite.LocalFlags
)

func TestMain(m *testing.M) { suite.Main(m, 40, shared.End) }

// shared is the OpenBao of all tests.
var shared = suite.Shared[*parts.OpenBao]{Start: parts.StartDevOpenBao}

// newTenant makes a key of the shared OpenBao, and a role that may use it.
func newTenant(t *testing.T) *parts.Tenant {
	t.Helper()
	tenant, err := shared.Use(t).NewTenant(parts.RandomName(), shortDir(t), 60, parts.UseOfKey...)
	must(t, err)
	must(t, tenant.MakeKey())
	return tenant
}

// ask sends one request of the root user.
func ask(t *testing.T, b *parts.OpenBao, method, path string, body map[string]any) map[string]any {
	t.Helper()
	data, err := b.Ask(method, path, body)
	must(t, err)
	return data
}

// rolePath is the path of a tenant's role.
func rolePath(n *parts.Tenant) string { return "auth/approle/role/" + n.Key }
