// Package author_test calls programs of other authors with the client code of the API server. These
// programs are built outside of the workspace.
package author_test

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
