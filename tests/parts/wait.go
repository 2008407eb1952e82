package parts

import (
	"fmt"
	"math/rand/v2"
	"net"
	"sync"
	"time"
)

// Eventually polls until the condition holds or the bound has passed. It reports whether the condition holds. The
// bound is longer on an overloaded machine.
func Eventually(bound time.Duration, holds func() bool) bool {
	return EventuallyEvery(10*time.Millisecond, bound, holds)
}

// EventuallyEvery is Eventually with a pause between two polls.
func EventuallyEvery(pause, bound time.Duration, holds func() bool) bool {
	ticker := time.NewTicker(pause)
	defer ticker.Stop()
	for watch := StartWatch(); ; <-ticker.C {
		// Poll once more after the bound, because the test itself may have been delayed.
		late := watch.Calm() > bound
		if holds() {
			return true
		}
		if late {
			return false
		}
	}
}

// These ports are below the kernel's range for outgoing connections, so no connection takes one of them before a
// test listens on it.
const firstPort, lastPort = 15_000, 32_000

var givenPorts sync.Map

// FreePort returns a port of the loopback interface on which no process listens, and which this process has not
// returned before.
func FreePort() int {
	for {
		port := firstPort + rand.IntN(lastPort-firstPort)
		listener, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port))
		if err != nil {
			continue
		}
		_ = listener.Close()
		if _, given := givenPorts.LoadOrStore(port, true); !given {
			return port
		}
	}
}

// FreeAddress returns a free port with its host.
func FreeAddress() string { return fmt.Sprintf("127.0.0.1:%d", FreePort()) }

// RandomName returns a unique name.
func RandomName() string { return fmt.Sprintf("k%016x", rand.Uint64()) }
