package suite

import (
	"flag"
	"os"
	"strconv"
	"sync"
	"testing"

	"vault-kube-kms.test/parts"
)

// Main runs a suite with so many tests at once, since most of them wait most of the time. It then ends what
// the tests shared, and the process.
func Main(m *testing.M, parallel int, ends ...func()) {
	flag.Parse()
	if err := flag.Set("test.parallel", strconv.Itoa(parallel)); err != nil {
		panic(err)
	}
	code := m.Run()
	for _, end := range ends {
		end()
	}
	os.Exit(code)
}

// Shared is what all tests of a suite share: the first test that uses it starts it, in a folder of its own,
// by the program of OpenBao.
type Shared[T interface{ Kill() }] struct {
	// Start starts it.
	Start func(way parts.Way, program, dir string) (T, error)

	once    sync.Once
	started bool
	dir     string
	value   T
	err     error
}

// Use returns it. A test must not harm it.
func (s *Shared[T]) Use(t *testing.T) T {
	t.Helper()
	program := Needed(t, "BAO")
	s.once.Do(func() {
		if s.dir, s.err = os.MkdirTemp("/tmp", "vkk-shared"); s.err == nil {
			s.value, s.err = s.Start(parts.Way{}, program, s.dir)
			s.started = s.err == nil
		}
	})
	Must(t, s.err)
	return s.value
}

// End ends it, if any test has used it, and removes its folder.
func (s *Shared[T]) End() {
	if s.started {
		s.value.Kill()
	}
	_ = os.RemoveAll(s.dir)
}
