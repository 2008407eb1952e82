package faults_test

import (
	"path/filepath"
	"strings"
	"testing"
	"time"

	"vault-kube-kms.test/parts"
)

const (
	// recoveryBound is the design's limit of the recovery after a fault of any length.
	recoveryBound = 10 * time.Second
	// After this time without a failed call the plugin counts as recovered.
	quiet = 3 * time.Second
	// The start of a debug build is slow on two shared cores.
	startBound = 30 * time.Second
)

// trial is a plugin under load that goes through one fault.
type trial struct {
	*load
	t      *testing.T
	plugin *parts.Plugin
	tenant *parts.Tenant
	pid    int

	began, over time.Time
	// since measures the time from the end of the fault's cause.
	since  parts.Watch
	before counters
}

// counters has metrics of the plugin.
type counters struct {
	logins, refused, retries, writes, reads, refusedLogins float64
}

// promise has the limits of the design for a fault.
type promise struct {
	// The maximum of failed calls: of Encrypt and Decrypt, and of Status.
	failures, statusFailures int
	// The maximum of successful logins, and of failed logins and renewals.
	logins, sessionFailures int
	// The maximum of requests to the keeper: for each failed Encrypt and Decrypt, and for the plugin's own
	// logins, key reads and proofs. A successful call costs perSuccess.
	perFailure float64
	own        int
}

// unbounded is the number of failures for a fault in which all calls fail.
const unbounded = 1 << 30

// perSuccess limits the requests of a successful call, retries included.
const perSuccess = 1.1

// newTrial starts a plugin under load and waits until calls succeed. The plugin has the tenant's flags and the
// addresses of the cluster in this order.
func newTrial(t *testing.T, tenant *parts.Tenant, addresses []string, flags ...string) *trial {
	t.Helper()
	endpoint := "unix://" + filepath.Join(shortDir(t), "kms.sock")
	plugin, err := parts.StartPlugin(parts.Way{}, "plugin", needed(t, "PROVIDER"), endpoint,
		append(tenant.FlagsVia(addresses...), flags...)...)
	must(t, err)
	x := &trial{t: t, plugin: plugin, tenant: tenant, pid: plugin.Pid()}
	t.Cleanup(func() {
		if !plugin.Stop() {
			t.Error("the plugin did not end on SIGTERM")
		}
		if t.Failed() {
			t.Logf("the plugin printed:\n%s", parts.Tail(plugin.Printed()))
		}
	})
	if !parts.Eventually(startBound, plugin.Healthy) {
		t.Fatal("the plugin was never healthy")
	}
	x.load = newLoad(t, endpoint)
	x.untilCallsWork(time.Now())
	if a := x.account(time.Time{}); a.keeperFailures() > 0 {
		t.Fatalf("calls fail before the fault: %s\n%s", a.failures(), a.messages())
	}
	return x
}

// untilCallsWork waits for a round of calls after this time that all succeed.
func (x *trial) untilCallsWork(moment time.Time) {
	x.t.Helper()
	if !parts.EventuallyEvery(50*time.Millisecond, startBound, func() bool {
		_, complete := recovered(x.ledger.since(moment), moment)
		return complete
	}) {
		a := x.account(moment)
		x.t.Fatalf("calls do not work: %v, %s\n%s", a.calls, a.failures(), a.messages())
	}
}

func (x *trial) account(from time.Time) account { return accountOf(x.ledger.since(from), from) }

func (x *trial) counted(metric string, labels ...string) (float64, error) {
	metrics, err := x.plugin.Metrics()
	if err != nil {
		return 0, err
	}
	sum, _ := metrics.Sum(metric, labels...)
	return sum, nil
}

func (x *trial) counters() counters {
	x.t.Helper()
	metrics, err := x.plugin.Metrics()
	must(x.t, err)
	sum := func(metric string, labels ...string) float64 {
		sum, _ := metrics.Sum(metric, labels...)
		return sum
	}
	asked := func(operation string) float64 {
		label := `operation="` + operation + `"`
		return sum("vso_client_operations_total", label) + sum("vso_client_operations_errors_total", label)
	}
	return counters{
		logins: sum("vault_kube_kms_logins_total"), refused: sum("vault_kube_kms_session_failures_total"),
		retries: sum("vault_kube_kms_retries_total"), writes: asked("write"), reads: asked("read"),
		refusedLogins: sum("vault_kube_kms_session_failures_total", `code="login-refused"`),
	}
}

// begin records the state. Call it right before the fault.
func (x *trial) begin() {
	x.t.Helper()
	x.before, x.began = x.counters(), time.Now()
}

// end records the end of the fault's cause. Call it right after that.
func (x *trial) end() { x.over, x.since = time.Now(), parts.StartWatch() }

// untilFails waits until calls of a method fail.
func (x *trial) untilFails(method string) {
	x.t.Helper()
	if !parts.EventuallyEvery(50*time.Millisecond, startBound, func() bool {
		return x.account(x.began).failed[method] > 0
	}) {
		x.t.Errorf("no %s fails, so the test made no fault", method)
	}
}

// require waits for the recovery, and checks the limits of the promise.
func (x *trial) require(p promise) {
	x.t.Helper()
	x.untilQuiet()
	a := x.account(x.began)
	after := x.counters()
	x.load.end()
	at, _ := recovered(x.ledger.since(x.over), x.over)
	recovery := at.Sub(x.over)
	x.tell(a, recovery, after)
	if recovery > x.since.Stretched(recoveryBound) {
		x.t.Errorf("the plugin recovers after %v", recovery)
	}
	x.requireFailures(a, p)
	x.requireBounded(a, p, after)
	x.requireSameProcess()
	x.requireReads(x.firstAndNewest(200))
}

// untilQuiet waits until no call has failed for some time, or until the recovery has taken too long.
func (x *trial) untilQuiet() {
	x.t.Helper()
	if !parts.EventuallyEvery(100*time.Millisecond, recoveryBound+startBound, func() bool {
		at, complete := recovered(x.ledger.since(x.over), x.over)
		return complete && time.Since(at) > quiet
	}) {
		x.t.Error("the plugin never recovers")
	}
}

func (x *trial) tell(a account, recovery time.Duration, after counters) {
	x.t.Helper()
	round := func(d time.Duration) time.Duration { return d.Round(10 * time.Millisecond) }
	x.t.Logf("FAULT | %s | lasts %v | %d calls | failures: %s | longest gap %v | slowest success %v | recovery %v |"+
		" %v logins, %v session failures | %v retries | %v writes, %v reads",
		strings.TrimPrefix(x.t.Name(), "Test"), round(x.over.Sub(x.began)), a.keeperCalls(), a.failures(), round(a.gap),
		round(a.slowest), round(recovery), after.logins-x.before.logins, after.refused-x.before.refused,
		after.retries-x.before.retries, after.writes-x.before.writes, after.reads-x.before.reads)
}

func (x *trial) requireFailures(a account, p promise) {
	x.t.Helper()
	if a.keeperFailures() > p.failures {
		x.t.Errorf("%d calls fail, %d are allowed:\n%s", a.keeperFailures(), p.failures, a.messages())
	}
	if a.failed["Status"] > p.statusFailures {
		x.t.Errorf("Status fails %d times, %d are allowed:\n%s", a.failed["Status"], p.statusFailures, a.messages())
	}
}

func (x *trial) requireBounded(a account, p promise, after counters) {
	x.t.Helper()
	// A long trial outlives a token, and reads the key more often.
	tokens := int(time.Since(x.began).Seconds()) / (tokenSeconds * 4 / 3)
	p.logins, p.own = p.logins+tokens, p.own+20*tokens
	if logins := after.logins - x.before.logins; logins > float64(p.logins) {
		x.t.Errorf("%v logins, %d are allowed", logins, p.logins)
	}
	if refused := after.refused - x.before.refused; refused > float64(p.sessionFailures) {
		x.t.Errorf("%v logins and renewals fail, %d are allowed", refused, p.sessionFailures)
	}
	if refused := after.refusedLogins - x.before.refusedLogins; refused > refusalsMax {
		x.t.Errorf("%v logins are refused: five lock the role", refused)
	}
	requests := after.writes - x.before.writes + after.reads - x.before.reads
	failed := a.keeperFailures()
	worked := a.keeperCalls() - failed
	if most := perSuccess*float64(worked) + p.perFailure*float64(failed) + float64(p.own); requests > most {
		x.t.Errorf("%d calls that worked and %d that failed lead to %v requests, %v are allowed",
			worked, failed, requests, most)
	}
}

// Five refused logins within 15 minutes lock a role for all its nodes.
const refusalsMax = 2

func (x *trial) requireSameProcess() {
	x.t.Helper()
	if !x.plugin.Alive() || x.plugin.Pid() != x.pid {
		x.t.Error("the plugin has ended")
	}
	if incidents, err := x.counted("vault_kube_kms_incidents_total"); err != nil || incidents != 0 {
		x.t.Errorf("%v incidents: %v", incidents, err)
	}
	printed := x.plugin.Printed()
	for _, secret := range []string{x.tenant.SecretID, x.tenant.Bao.Token} {
		if strings.Contains(printed, secret) {
			x.t.Error("a secret is logged")
		}
	}
	if strings.Contains(printed, "panicked") {
		x.t.Error("a task has panicked")
	}
}
