// Package apiserver_test drives the binary over its socket with the API server's own client.
// The names of tests have the numbers of the KMS v2 conformance checklist.
package apiserver_test

import (
	"crypto/rand"
	"testing"

	"vault-kube-kms.test/suite"
)

func TestMain(m *testing.M) { suite.Main(m, 16, shared.End) }

var (
	needed     = suite.Needed
	must       = suite.Must
	shortDir   = suite.ShortDir
	localFlags = suite.LocalFlags
)

// keeper is a kind of keeper. flags makes a new key there and returns the flags of a plugin that uses it.
type keeper struct {
	name  string
	flags func(t *testing.T) []string
}

var keepers = []keeper{
	{"openbao", func(t *testing.T) []string { return sharedBao(t).tenant(t).Flags() }},
	{"local", localFlags},
}

// onEachKeeper runs a test against every keeper, each time with a key of its own.
func onEachKeeper(t *testing.T, test func(t *testing.T, flags []string)) {
	t.Parallel()
	for _, keeper := range keepers {
		t.Run(keeper.name, func(t *testing.T) {
			t.Parallel()
			test(t, keeper.flags(t))
		})
	}
}

// onEachPlugin runs a test against a healthy plugin on every keeper.
func onEachPlugin(t *testing.T, test func(t *testing.T, p *plugin)) {
	onEachKeeper(t, func(t *testing.T, flags []string) { test(t, start(t, flags)) })
}

func randomBytes(count int) []byte {
	bytes := make([]byte, count)
	_, _ = rand.Read(bytes)
	return bytes
}
