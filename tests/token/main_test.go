// Package token_test calls the provider with a key on a PKCS#11 token, by the client code of the API
// server.
package token_test

import (
	"testing"
	"time"

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
