package faults_test

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"
)

// call is one call of the API server, and what came of it.
type call struct {
	method       string
	asked, ended time.Time
	// code is empty where it worked.
	code, message string
}

// ledger is all calls, in the order in which they ended.
type ledger struct {
	mu    sync.Mutex
	calls []call
}

func (l *ledger) note(method string, asked time.Time, code, message string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.calls = append(l.calls, call{method, asked, time.Now(), code, message})
}

// since are the calls that ended after a moment.
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

// recovered is when all was well again after a moment: each method has worked, with a call that was
// made after it, and no call fails any more. It is the moment itself where nothing ever failed.
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
			// Where a call had failed, it is well again only now.
			if failed {
				at = c.ended
			}
		}
	}
	return at, len(worked) == len(methods)
}

// account is what came of many calls.
type account struct {
	calls, failed map[string]int
	codes         map[string]int
	// said is each message, with how often it was said.
	said map[string]int
	// gap is the longest time in which no Encrypt, or no Decrypt, worked though some were tried; slowest
	// is the longest call that worked.
	gap, slowest time.Duration
}

// accountOf is the account of calls that were made from a moment on.
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

// keeperCalls are those that need the keeper.
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
