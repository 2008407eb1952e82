package field_test

import (
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"vault-kube-kms.test/parts"
)

// debugTexts are what Rust's Debug form and rustls's own words look like: no operator can use them.
var debugTexts = []string{
	"Other(", "OtherError", "CaUsedAsEndEntity", "InvalidContentType", "corrupt message",
	"received fatal alert", "UnknownIssuer", "NotValidForName", "peer is incompatible",
	"BadSignature", "BadEncoding", "InvalidCharacter", "DnsName(", "Some(", "Err(",
}

// waitTold waits until Status fails with a text that matches all patterns.
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

// everything is all that an operator could read so far: errors of calls, /statusz, the log.
func (p *plugin) everything() []string {
	p.notes()
	p.mu.Lock()
	defer p.mu.Unlock()
	return append(slices.Clone(p.told), strings.Split(p.Printed(), "\n")...)
}

// requireNeverTold fails where a text of these, or one of debugTexts, was told to the operator.
func (p *plugin) requireNeverTold(t *testing.T, texts ...string) {
	t.Helper()
	requireNone(t, p.everything(), append(texts, debugTexts...)...)
}

// requireNone fails where one of the texts is in one of the lines, once a text.
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

// requireTold fails unless a text matches all patterns.
func requireTold(t *testing.T, text string, patterns ...string) {
	t.Helper()
	if !matchesAll(text, patterns) {
		t.Errorf("CAUSE NOT TOLD: expected %q in: %s", patterns, parts.Tail(text))
	}
}
