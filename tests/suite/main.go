package suite

import (
	"flag"
	"os"
	"strconv"
	"sync"
	"testing"

	"vault-kube-kms.test/parts"
)

// Main runs a suite with this number of tests at once, because most tests wait most of the time. It then ends the
// shared servers and the process.
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

// Shared is a server that all tests of a suite share. The first test that uses it starts it in its own folder, by
// the program of OpenBao or by the program that another variable names.
type Shared[T interface{ Kill() }] struct {
	// Start starts it.
	Start func(way parts.Way, program, dir string) (T, error)
	// Variable names the program, or its folder. By default it is BAO.
	Variable string

	once    sync.Once
	started bool
	dir     string
	value   T
	err     error
}

// Use returns it, and starts it at the first call. A test must not disturb it.
func (s *Shared[T]) Use(t *testing.T) T {
	t.Helper()
	var program string
	if s.Variable == "" {
		program = Server(t)
	} else {
		program = Needed(t, s.Variable)
	}
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
