package field_test

import (
	"fmt"
	"net/http"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"vault-kube-kms.test/parts"
	"vault-kube-kms.test/suite"
)

// TestPolicyWithAllowedParameters expects that the error names the parameters, if a policy grants update and
// denies by parameters.
func TestPolicyWithAllowedParameters(t *testing.T) {
	t.Parallel()
	for name, rule := range map[string]string{
		"allowed_parameters": `allowed_parameters = { "plaintext" = [] }`,
		"denied_parameters":  `denied_parameters = { "associated_data" = [] }`,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			n := newTenant(t)
			policy := fmt.Sprintf(`
path "transit/keys/%[1]s"    { capabilities = ["read"] }
path "transit/decrypt/%[1]s" { capabilities = ["update"] }
path "transit/encrypt/%[1]s" { capabilities = ["update"]
  %[2]s }`, n.Key, rule)
			ask(t, n.Bao, "PUT", "sys/policies/acl/"+n.Key, map[string]any{"policy": policy})
			p := launch(t, n.Flags())
			p.waitTold(t, startBound, `permission-denied`, `a rule with allowed_parameters or denied_parameters must allow plaintext`, `transit/encrypt`)
			requireTold(t, p.checks(t), `(allowed|denied)_parameters`)
			must(t, n.Allow(parts.UseOfKey...))
			p.waitHealthy(t, "after the policy was corrected", refusalBound+slack)
		})
	}
}

// memoryMax limits the resident memory of the plugin, in KiB.
const memoryMax = 64 << 10

func TestKeyOf2000Versions(t *testing.T) {
	t.Parallel()
	n := newTenant(t)
	for range 2_000 {
		must(t, n.Rotate())
	}
	p := start(t, n.Flags())
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.Pid()))
	must(t, err)
	_, resident, _ := strings.Cut(string(text), "VmRSS:")
	if size, err := strconv.Atoi(strings.Fields(resident)[0]); err != nil || size > memoryMax {
		t.Errorf("the plugin holds %d KiB of memory: %v", size, err)
	}
}

// TestDateOfABalancerThatIsOff sends a wrong Date header. It expects that calls work, that a rotation takes over
// in time, and that `check` reports the difference.
func TestDateOfABalancerThatIsOff(t *testing.T) {
	t.Parallel()
	for name, off := range map[string]time.Duration{"ahead": 2 * time.Hour, "behind": -2 * time.Hour} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			n := newTenant(t)
			f := newFrontAs(t, n.Bao, suite.Front{See: func(r *http.Response) error {
				r.Header.Set("Date", time.Now().Add(off).UTC().Format(http.TimeFormat))
				return nil
			}})
			p := start(t, f.flags(n, "--rotation-delay=2s"))
			requireTold(t, p.checks(t), `WARN +clock`, `s apart; synchronise both`)
			must(t, n.Rotate())
			if !parts.EventuallyEvery(200*time.Millisecond, outageBound, func() bool {
				if err := p.worksDespiteLoad(t.Context()); err != nil {
					t.Fatalf("a call fails: %v", err)
				}
				_, sealed, err := p.encrypt(t.Context())
				return err == nil && strings.HasPrefix(sealed.KeyID, "v2.")
			}) {
				t.Error("the new version does not write")
			}
		})
	}
}
