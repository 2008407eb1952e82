package faults_test

import (
	"testing"
	"time"
)

// These tests check the functions that judge recorded calls, with made-up calls.
func TestRecoveryIsTheEndOfTheLastFailureAndOneSuccessOfEach(t *testing.T) {
	t.Parallel()
	over := time.Now()
	at := func(seconds int, method, code string) call {
		ended := over.Add(time.Duration(seconds) * time.Second)
		return call{method: method, asked: ended.Add(-time.Millisecond), ended: ended, code: code}
	}
	good := []call{at(1, "Encrypt", ""), at(2, "Decrypt", ""), at(3, "Status", "")}
	for name, c := range map[string]struct {
		calls    []call
		after    time.Duration
		complete bool
	}{
		"nothing failed":        {good, 0, true},
		"nothing was asked":     {nil, 0, false},
		"one method is missing": {good[:2], 0, false},
		"asked before the end": {
			[]call{{method: "Encrypt", asked: over.Add(-time.Second), ended: over.Add(time.Second)}, good[1], good[2]}, 0, false,
		},
		"failed, then well": {append([]call{at(0, "Status", "Unavailable")}, good...), 3 * time.Second, true},
		"failed once more":  {append(append([]call{}, good...), at(4, "Decrypt", "Unavailable")), 4 * time.Second, false},
	} {
		moment, complete := recovered(c.calls, over)
		if moment.Sub(over) != c.after || complete != c.complete {
			t.Errorf("%s: recovered after %v, %v", name, moment.Sub(over), complete)
		}
	}
}

func TestTheGapIsBetweenSuccessesOfOneMethod(t *testing.T) {
	t.Parallel()
	from := time.Now()
	at := func(seconds int, method, code string) call {
		ended := from.Add(time.Duration(seconds) * time.Second)
		return call{method: method, asked: ended.Add(-time.Second), ended: ended, code: code}
	}
	a := accountOf([]call{
		at(1, "Encrypt", ""), at(2, "Encrypt", "Unavailable"), at(3, "Decrypt", ""), at(5, "Encrypt", ""),
		at(9, "Decrypt", ""), at(10, "Status", "unhealthy"), at(30, "Status", ""),
	}, from)
	if a.gap != 4*time.Second || a.slowest != time.Second {
		t.Errorf("gap %v, slowest %v", a.gap, a.slowest)
	}
	if a.keeperCalls() != 5 || a.keeperFailures() != 1 || a.failures() != "1 Encrypt Unavailable, 1 Status unhealthy" {
		t.Errorf("%d calls, %d failed: %s", a.keeperCalls(), a.keeperFailures(), a.failures())
	}
}
