package field_test

import (
	"regexp"
	"strings"
	"syscall"
	"testing"
)

// oneThread lets a program have one thread beside its first one: a thread takes 1 GiB of address
// space, and there are 1.5 GiB.
var oneThread = wrapper{"sh", "-c", `ulimit -v 1572864 && RUST_MIN_STACK=1073741824 exec "$@"`, "sh"}

// A panic of the release binary aborts it, and the last line tells where it was. The runtime panics
// where the system refuses a thread for its first blocking work; the one thread writes the log.
func TestPanicIsTheLastLine(t *testing.T) {
	t.Parallel()
	p := launch(t, localFlags(t), oneThread...)
	if !p.EndsWithin(startBound) {
		t.Fatal("it has not ended")
	}
	if signal := p.EndSignal(); signal != syscall.SIGABRT {
		t.Errorf("it ended by %v with %d, and not by SIGABRT: is it the release binary?", signal, p.ExitCode())
	}
	place := regexp.MustCompile(`panic at \S+\.rs:\d+:\d+; this is a defect`)
	for outlet, printed := range map[string]string{"stdout": p.Stdout.String(), "stderr": p.Stderr.String()} {
		lines := strings.Split(strings.TrimSuffix(printed, "\n"), "\n")
		if last := lines[len(lines)-1]; !place.MatchString(last) {
			t.Errorf("the last line of %s is %q", outlet, last)
		}
		if count := strings.Count(printed, "panic"); outlet == "stderr" && count != 1 {
			t.Errorf("stderr tells of %d panics:\n%s", count, printed)
		}
	}
}
