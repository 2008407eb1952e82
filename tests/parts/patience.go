package parts

import (
	"fmt"
	"os"
	"runtime"
	"strings"
	"sync"
	"time"
)

// A limit in a test is a promise on a machine that has a processor for every process that wants to run.
// Where there are fewer, all that the test and the program do takes longer, and so may they: by so many times
// as there are processes for each processor, and by no more than this.
const slowestFactor = 6

// How often the machine is looked at.
const lookEvery = 100 * time.Millisecond

// Watch measures time as it would have passed on a machine that is not overloaded.
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

// Stretched returns a limit that began with the watch as it is on this machine.
func (w Watch) Stretched(limit time.Duration) time.Duration {
	wall, calm := machine.now()
	if calm <= w.calm {
		return limit
	}
	return time.Duration(float64(limit) * float64(wall-w.began) / float64(calm-w.calm))
}

// Overloaded says whether the machine was too busy, since the start of the watch, for limits that are none of
// the test's own, such as the API server's for a call.
func (w Watch) Overloaded() bool { return w.Stretched(time.Second) > 5*time.Second/4 }

// String is the time as it was and as it counts.
func (w Watch) String() string {
	wall, _ := machine.now()
	return fmt.Sprintf("%v (%v on a calm machine)", (wall - w.began).Round(lookEvery), w.Calm().Round(lookEvery))
}

// Stretched returns a limit that begins now as it is on this machine at the moment.
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

// advance adds the time since the last look. The caller holds the lock.
func (c *clock) advance() {
	now := time.Now()
	c.calm += time.Duration(float64(now.Sub(c.looked)) / c.factor)
	c.looked = now
}

// crowding is how many processes want to run for each processor: at least 1, at most slowestFactor, and 1
// where that is not known.
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
	// One of them is the thread that reads this.
	return min(slowestFactor, max(1, float64(running-1)/float64(runtime.NumCPU())))
}
