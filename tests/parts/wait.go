package parts

import (
	"fmt"
	"math/rand/v2"
	"net"
	"sync"
	"time"
)

// Eventually polls until it holds or the bound has passed. The bound is longer on an overloaded machine.
func Eventually(bound time.Duration, holds func() bool) bool {
	return EventuallyEvery(10*time.Millisecond, bound, holds)
}

// EventuallyEvery is Eventually with a pause between two polls.
func EventuallyEvery(pause, bound time.Duration, holds func() bool) bool {
	ticker := time.NewTicker(pause)
	defer ticker.Stop()
	for watch := StartWatch(); ; <-ticker.C {
		// It polls once more after the bound: the test itself may have been held up.
		late := watch.Calm() > bound
		if holds() {
			return true
		}
		if late {
			return false
		}
	}
}

// The ports below the range from which a kernel takes those of outgoing connections: nobody
// gets one of these by chance before it is listened on.
const firstPort, lastPort = 15_000, 32_000

var givenPorts sync.Map

// FreePort is a port of the loopback interface that nothing listens on, and that this process
// did not give away before.
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

// FreeAddress is FreePort with its host.
func FreeAddress() string { return fmt.Sprintf("127.0.0.1:%d", FreePort()) }

// RandomName is a name that nothing else has.
func RandomName() string { return fmt.Sprintf("k%016x", rand.Uint64()) }
