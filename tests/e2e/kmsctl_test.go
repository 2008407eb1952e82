package e2e_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"os/exec"
	"testing"

	"vault-kube-kms.test/parts"
)

// These are the exit codes of vault-kube-kmsctl.
const (
	good     = 0
	bad      = 1
	noAnswer = 2
)

// ran is a run of vault-kube-kmsctl that has ended.
type ran struct {
	code           int
	stdout, stderr string
}

// ctl runs vault-kube-kmsctl and requires an exit code.
func ctl(t *testing.T, code int, args ...string) ran {
	t.Helper()
	command := parts.Command(append([]string{needed(t, "KMSCTL")}, args...)...)
	var stdout, stderr bytes.Buffer
	command.Stdout, command.Stderr = &stdout, &stderr
	err := command.Run()
	var failed *exec.ExitError
	if err != nil && !errors.As(err, &failed) {
		t.Fatal(err)
	}
	done := ran{command.ProcessState.ExitCode(), stdout.String(), stderr.String()}
	if done.code != code {
		t.Fatalf("vault-kube-kmsctl %q: exit code %d and not %d\n%s%s", args, done.code, code, done.stdout, done.stderr)
	}
	return done
}

// answer reads what it printed as JSON.
func (r ran) answer(t *testing.T, into any) {
	t.Helper()
	if err := json.Unmarshal([]byte(r.stdout), into); err != nil {
		t.Fatalf("%v: %s", err, r.stdout)
	}
}
