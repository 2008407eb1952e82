package parts

import (
	"fmt"
	"os"
	"runtime"
	"strings"
	"sync"
	"time"
)

// The limits of tests hold on a machine with a processor for every runnable process. With fewer processors all
// work takes longer, so the limits are multiplied by the number of runnable processes for each processor, and at
// most by slowestFactor.
const slowestFactor = 6

// The interval of the measurements.
const lookEvery = 100 * time.Millisecond

// Watch measures time without the delay of an overloaded machine.
type Watch struct{ began, calm time.Duration }

// StartWatch starts a watch.
func StartWatch() Watch {
	wall, calm := machine.now()
	return Watch{wall, calm}
}

// Calm returns the time since the start of the watch, without what the machine's load has added to it.
func (w Watch) Calm() time.Duration {
	_, calm := machine.now()
	return calm - w.calm
}

// Stretched returns a limit that began with the watch, adjusted to the load of this machine.
func (w Watch) Stretched(limit time.Duration) time.Duration {
	wall, calm := machine.now()
	if calm <= w.calm {
		return limit
	}
	return time.Duration(float64(limit) * float64(wall-w.began) / float64(calm-w.calm))
}

// Overloaded reports whether the machine was too busy since the start of the watch for limits that a test cannot
// change, such as the API server's limit of a call.
func (w Watch) Overloaded() bool { return w.Stretched(time.Second) > 5*time.Second/4 }

// String returns the real time and the time that counts.
func (w Watch) String() string {
	wall, _ := machine.now()
	return fmt.Sprintf("%v (%v on a calm machine)", (wall - w.began).Round(lookEvery), w.Calm().Round(lookEvery))
}

// Stretched returns a limit that begins now, adjusted to the present load of this machine.
func Stretched(limit time.Duration) time.Duration {
	return time.Duration(float64(limit) * machine.current())
}

// clock runs slower the more processes share a processor.
type clock struct {
	once   sync.Once
	mu     sync.Mutex
	began  time.Time
	looked time.Time
	calm   time.Duration
	factor float64
}

var machine clock

func (c *clock) now() (wall, calm time.Duration) {
	c.once.Do(c.start)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.advance()
	return c.looked.Sub(c.began), c.calm
}

func (c *clock) current() float64 {
	c.once.Do(c.start)
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.factor
}

func (c *clock) start() {
	c.began = time.Now()
	c.looked, c.factor = c.began, crowding()
	go func() {
		for range time.Tick(lookEvery) {
			factor := crowding()
			c.mu.Lock()
			c.advance()
			c.factor = factor
			c.mu.Unlock()
		}
	}()
}

// advance adds the time since the last measurement. The caller holds the lock.
func (c *clock) advance() {
	now := time.Now()
	c.calm += time.Duration(float64(now.Sub(c.looked)) / c.factor)
	c.looked = now
}

// crowding returns the number of runnable processes for each processor: at least 1, at most slowestFactor, and 1
// if it is unknown.
func crowding() float64 {
	text, err := os.ReadFile("/proc/loadavg")
	fields := strings.Fields(string(text))
	if err != nil || len(fields) < 4 {
		return 1
	}
	var running int
	if _, err := fmt.Sscanf(fields[3], "%d/", &running); err != nil {
		return 1
	}
	// One of them is the thread that reads the file.
	return min(slowestFactor, max(1, float64(running-1)/float64(runtime.NumCPU())))
}
