// Package conformance_test tries KMS v2 plugins: by the code of the API server itself, and by
// vault-kube-kmsctl conformance. SOCKET=unix:///path go test ./conformance -run TestAPIServer tries any plugin.
package conformance_test

import (
	"testing"
	"time"

	"vault-kube-kms.test/parts"
	"vault-kube-kms.test/suite"
)

func TestMain(m *testing.M) { suite.Main(m, 4) }

var (
	needed   = suite.Needed
	must     = suite.Must
	shortDir = suite.ShortDir
)

// startBound limits how long a test waits for a process or its state.
const startBound = 20 * time.Second

// ours is our plugin, and rotates its key.
type ours struct {
	*parts.Plugin
	rotate func() error
}

// onKeyFile is our plugin with a key file of its own.
func onKeyFile(t *testing.T) ours {
	t.Helper()
	flags := suite.LocalFlags(t)
	return start(t, flags, func() error {
		return parts.Command(needed(t, "PROVIDER"), "local", "rotate", flags[1]).Run()
	})
}

// onTransit is our plugin with a server of its own.
func onTransit(t *testing.T) ours {
	t.Helper()
	bao, err := parts.StartDevOpenBao(parts.Way{}, suite.Server(t), t.TempDir())
	must(t, err)
	t.Cleanup(bao.Kill)
	tenant, err := bao.NewTenant("kubernetes", t.TempDir(), 600, parts.UseOfKey...)
	must(t, err)
	must(t, tenant.MakeKey())
	return start(t, tenant.Flags(), tenant.Rotate)
}

func start(t *testing.T, flags []string, rotate func() error) ours {
	t.Helper()
	endpoint := "unix://" + shortDir(t) + "/kms.sock"
	flags = append(flags, "--rotation-delay=0s")
	p, err := parts.StartPlugin(parts.Way{}, "plugin", needed(t, "PROVIDER"), endpoint, flags...)
	must(t, err)
	t.Cleanup(func() {
		if !p.Stop() {
			t.Error("the plugin did not end on SIGTERM")
		}
	})
	return ours{p, rotate}
}
