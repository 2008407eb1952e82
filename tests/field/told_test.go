package field_test

import (
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"vault-kube-kms.test/parts"
)

// debugTexts match texts of Rust's Debug form and of rustls. They do not help an operator.
var debugTexts = []string{
	"Other(", "OtherError", "CaUsedAsEndEntity", "InvalidContentType", "corrupt message",
	"received fatal alert", "UnknownIssuer", "NotValidForName", "peer is incompatible",
	"BadSignature", "BadEncoding", "InvalidCharacter", "DnsName(", "Some(", "Err(",
}

// waitTold waits until the error of Status matches all patterns.
func (p *plugin) waitTold(t *testing.T, bound time.Duration, patterns ...string) {
	t.Helper()
	var last string
	told := parts.EventuallyEvery(50*time.Millisecond, bound, func() bool {
		if err := p.status(t.Context()); err != nil {
			last = err.Error()
		}
		return matchesAll(last, patterns)
	})
	if told {
		t.Logf("told: %s", last)
	} else {
		t.Errorf("CAUSE NOT TOLD: expected %q; Status says: %s", patterns, last)
	}
}

func matchesAll(text string, patterns []string) bool {
	return !slices.ContainsFunc(patterns, func(pattern string) bool {
		return !regexp.MustCompile(pattern).MatchString(text)
	})
}

// everything returns all texts that an operator could read so far: errors of calls, /statusz, the log.
func (p *plugin) everything() []string {
	p.notes()
	p.mu.Lock()
	defer p.mu.Unlock()
	return append(slices.Clone(p.told), strings.Split(p.Printed(), "\n")...)
}

// requireNeverTold fails if the operator could read one of these texts or one of debugTexts.
func (p *plugin) requireNeverTold(t *testing.T, texts ...string) {
	t.Helper()
	requireNone(t, p.everything(), append(texts, debugTexts...)...)
}

// requireNone fails once for each text that is in one of the lines.
func requireNone(t *testing.T, lines []string, texts ...string) {
	t.Helper()
	for _, text := range texts {
		at := slices.IndexFunc(lines, func(line string) bool { return strings.Contains(line, text) })
		if at >= 0 {
			line := lines[at]
			found := strings.Index(line, text)
			t.Errorf("MISLEADING: %q is told: %s", text, line[max(0, found-200):min(len(line), found+200)])
		}
	}
}

// requireFinding fails if no failed finding of `check` matches all patterns. The finding about the socket repeats the
// text of Status, so it does not count.
func requireFinding(t *testing.T, printed string, patterns ...string) {
	t.Helper()
	for line := range strings.Lines(printed) {
		if strings.HasPrefix(line, "FAIL ") && !strings.HasPrefix(line, "FAIL  socket ") && matchesAll(line, patterns) {
			return
		}
	}
	t.Errorf("CAUSE NOT TOLD: expected %q in a failed finding of check: %s", patterns, parts.Tail(printed))
}

// requireTold fails if no text matches all patterns.
func requireTold(t *testing.T, text string, patterns ...string) {
	t.Helper()
	if !matchesAll(text, patterns) {
		t.Errorf("CAUSE NOT TOLD: expected %q in: %s", patterns, parts.Tail(text))
	}
}
