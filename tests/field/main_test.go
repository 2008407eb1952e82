// Package field_test repeats faults that users of Vault, of its clients and of KMS plugins reported. Each trial
// is a test or subtest with the name of the trial. README.md lists all trials and their tests.
package field_test

import (
	"testing"
	"time"

	"vault-kube-kms.test/parts"
	"vault-kube-kms.test/suite"
)

// These limit the time from the end of the cause until the plugin is healthy.
const (
	// An outage of the keeper, or of a proxy in front of it.
	outageBound = 30 * time.Second
	// A refusal by the keeper that is not about the pair of role ID and secret ID.
	refusalBound = 60 * time.Second
	// A name with a new address, or a removed socket file.
	moveBound = 5 * time.Second
	// A corrected file, which the plugin checks every two seconds.
	fileBound = 5 * time.Second
	// Each test adds this to the limit. An overloaded machine may add more: see parts.Watch.
	slack = 3 * time.Second
	// The time that a test itself needs to notice an end. See requireTook.
	noticed = 500 * time.Millisecond
)

// requireTook fails if more time than the bound has passed since the start of a watch, unless the machine was
// overloaded.
func requireTook(t *testing.T, watch parts.Watch, bound time.Duration) {
	t.Helper()
	if watch.Calm() > bound+noticed && !watch.Overloaded() {
		t.Errorf("LATE: %v, and not within %v", watch, bound)
	}
}

// startBound limits the time in which a plugin starts or names a cause, on a busy machine.
const startBound = 20 * time.Second

var (
	needed     = suite.Needed
	must       = suite.Must
	shortDir   = suite.ShortDir
	localFlags = suite.LocalFlags
	ask        = suite.Ask
)

func TestMain(m *testing.M) { suite.Main(m, 40, shared.End) }

// shared is the OpenBao of all tests.
var shared = suite.Shared[*parts.OpenBao]{Start: parts.StartDevOpenBao}

// newTenant makes a key of the shared OpenBao, and a role that may use it.
func newTenant(t *testing.T) *parts.Tenant {
	t.Helper()
	return suite.NewTenant(t, shared.Use(t))
}

// rolePath returns the path of a tenant's role.
func rolePath(n *parts.Tenant) string { return "auth/approle/role/" + n.Key }
