package faults_test

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"
)

// call is one call of the API server and its result.
type call struct {
	method       string
	asked, ended time.Time
	// code is empty if the call succeeded.
	code, message string
}

// ledger has all calls, in the order of their ends.
type ledger struct {
	mu    sync.Mutex
	calls []call
}

func (l *ledger) note(method string, asked time.Time, code, message string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.calls = append(l.calls, call{method, asked, time.Now(), code, message})
}

// since returns the calls that ended after this time.
func (l *ledger) since(moment time.Time) []call {
	l.mu.Lock()
	defer l.mu.Unlock()
	from := slices.IndexFunc(l.calls, func(c call) bool { return c.ended.After(moment) })
	if from < 0 {
		return nil
	}
	return slices.Clone(l.calls[from:])
}

var methods = []string{"Encrypt", "Decrypt", "Status"}

// recovered returns the time of the recovery after `from`: each method has succeeded with a call that began after
// it, and no later call has failed. Without any failure it returns `from` itself.
func recovered(calls []call, moment time.Time) (at time.Time, complete bool) {
	worked, failed := map[string]bool{}, false
	at = moment
	for _, c := range calls {
		switch {
		case c.code != "":
			clear(worked)
			at, failed = c.ended, true
		case c.asked.After(moment) && !worked[c.method]:
			worked[c.method] = true
			// After a failed call, the recovery is not earlier than this success.
			if failed {
				at = c.ended
			}
		}
	}
	return at, len(worked) == len(methods)
}

// account has the totals of many calls.
type account struct {
	calls, failed map[string]int
	codes         map[string]int
	// said has each error message with its count.
	said map[string]int
	// gap is the longest time without a successful Encrypt, or Decrypt, while some were tried. slowest is the
	// duration of the longest successful call.
	gap, slowest time.Duration
}

// accountOf returns the totals of the calls that began after this time.
func accountOf(calls []call, from time.Time) account {
	a := account{calls: map[string]int{}, failed: map[string]int{}, codes: map[string]int{}, said: map[string]int{}}
	since, failing := map[string]time.Time{"Encrypt": from, "Decrypt": from}, map[string]bool{}
	for _, c := range calls {
		a.calls[c.method]++
		if c.code != "" {
			a.failed[c.method]++
			a.codes[c.method+" "+c.code]++
			a.said[c.code+": "+c.message]++
			failing[c.method] = true
			continue
		}
		if last, counts := since[c.method]; counts && failing[c.method] {
			a.gap = max(a.gap, c.ended.Sub(last))
		}
		if c.method != "Status" {
			since[c.method] = c.ended
		}
		failing[c.method] = false
		a.slowest = max(a.slowest, c.ended.Sub(c.asked))
	}
	return a
}

// keeperCalls returns the calls that need the keeper.
func (a account) keeperCalls() int { return a.calls["Encrypt"] + a.calls["Decrypt"] }

func (a account) keeperFailures() int { return a.failed["Encrypt"] + a.failed["Decrypt"] }

func (a account) failures() string {
	if len(a.codes) == 0 {
		return "none"
	}
	var all []string
	for _, code := range slices.Sorted(maps.Keys(a.codes)) {
		all = append(all, fmt.Sprintf("%d %s", a.codes[code], code))
	}
	return strings.Join(all, ", ")
}

func (a account) messages() string {
	var all []string
	for _, message := range slices.Sorted(maps.Keys(a.said)) {
		all = append(all, fmt.Sprintf("%d times %s", a.said[message], message))
	}
	return strings.Join(all, "\n")
}
