package faults_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// sample has the memory, descriptors, threads and tasks of a process at one time.
type sample struct {
	at                          time.Time
	memoryKiB                   float64
	descriptors, threads, tasks int
}

type samples []sample

// During the warm-up, buffers and pools grow to their final size.
const warmUp = 2 * time.Minute

// These limit the growth of the plugin that is never restarted: from the start to the end, open connections
// included, and per minute over a long run.
const (
	moreDescriptors, moreTasks = 12, 12
	growthKiBPerMinute         = 32
	longEnough                 = 10 * time.Minute
)

// sample records the present sizes of the plugin that is never restarted.
func (s *soak) sample() {
	s.t.Helper()
	process := fmt.Sprintf("/proc/%d", s.lasts.plugin.Pid())
	text, err := os.ReadFile(process + "/status")
	must(s.t, err)
	descriptors, err := os.ReadDir(filepath.Join(process, "fd"))
	must(s.t, err)
	tasks, err := s.lasts.counted("vault_kube_kms_tasks")
	must(s.t, err)
	s.samples = append(s.samples, sample{
		time.Now(), float64(statusField(string(text), "VmRSS")), len(descriptors),
		statusField(string(text), "Threads"), int(tasks),
	})
}

func statusField(status, name string) int {
	for line := range strings.Lines(status) {
		if value, found := strings.CutPrefix(line, name+":"); found {
			number, _ := strconv.Atoi(strings.Fields(value)[0])
			return number
		}
	}
	return 0
}

// growth returns the growth of memory after the warm-up, in KiB a minute: the slope of the regression line.
func (s samples) growth() float64 {
	var n, sumX, sumY, sumXX, sumXY float64
	for _, one := range s {
		if one.at.Sub(s[0].at) < warmUp {
			continue
		}
		x, y := one.at.Sub(s[0].at).Minutes(), one.memoryKiB
		n, sumX, sumY, sumXX, sumXY = n+1, sumX+x, sumY+y, sumXX+x*x, sumXY+x*y
	}
	if d := n*sumXX - sumX*sumX; d > 0 {
		return (n*sumXY - sumX*sumY) / d
	}
	return 0
}

func (s samples) String() string {
	first, last := s[0], s[len(s)-1]
	most := first.memoryKiB
	for _, one := range s {
		most = max(most, one.memoryKiB)
	}
	return fmt.Sprintf("memory %.1f MiB, then %.1f MiB, at most %.1f MiB, %+.1f KiB a minute | descriptors %d, then %d |"+
		" threads %d, then %d | tasks %d, then %d",
		first.memoryKiB/1024, last.memoryKiB/1024, most/1024, s.growth(), first.descriptors, last.descriptors,
		first.threads, last.threads, first.tasks, last.tasks)
}

func (s samples) requireFlat(t *testing.T) {
	t.Helper()
	first, last := s[0], s[len(s)-1]
	if last.descriptors > first.descriptors+moreDescriptors || last.tasks > first.tasks+moreTasks || last.threads > first.threads+2 {
		t.Errorf("its descriptors, threads or tasks grow: %s", s)
	}
	if last.tasks == 0 {
		t.Error("tasks are not counted")
	}
	if last.at.Sub(first.at) > longEnough && s.growth() > growthKiBPerMinute {
		t.Errorf("its memory grows: %s", s)
	}
}
