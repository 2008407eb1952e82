// Package parts runs the parts of a control plane, each as a process of its own: the plugin, the
// keeper of its key, etcd and the API server. All of it is on the loopback interface.
package parts

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"time"
)

// How long a part may take to become ready, and to end, on a busy machine.
const (
	StartBound = 60 * time.Second
	StopBound  = 10 * time.Second
)

// Way is how processes are run.
type Way struct {
	// Logs is the folder for what they print, a file for each; empty keeps it in memory.
	Logs string
	// Outlive lets them live on when this process ends.
	Outlive bool
	// Passed are files that each gets as descriptors, from 3 on.
	Passed []*os.File
	// Variables are those of each, beside PATH.
	Variables []string
	// Started is told of each as soon as it runs, long before it is ready.
	Started func(name string, pid int) error
}

// Process is a running program. It is ended by its own id.
type Process struct {
	Stdout, Stderr Output
	cmd            *exec.Cmd
	log            string
	exited         chan struct{}
}

// Output collects what a process prints, and may be read meanwhile.
type Output struct {
	mu    sync.Mutex
	bytes bytes.Buffer
}

func (o *Output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.bytes.Write(p)
}

func (o *Output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.bytes.String()
}

// Command is a process that cannot outlive this one and sees none of its variables.
func Command(args ...string) *exec.Cmd {
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Env = []string{"PATH=" + os.Getenv("PATH")}
	cmd.WaitDelay = StopBound
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	return cmd
}

// Start runs args under a name for its log, with variables beside PATH.
func (w Way) Start(name string, args []string, variables ...string) (*Process, error) {
	p := &Process{cmd: Command(args...), exited: make(chan struct{})}
	p.cmd.Env = append(append(p.cmd.Env, w.Variables...), variables...)
	p.cmd.Stdout, p.cmd.Stderr = &p.Stdout, &p.Stderr
	p.cmd.ExtraFiles = w.Passed
	if w.Logs != "" {
		p.log = filepath.Join(w.Logs, name+".log")
		file, err := os.OpenFile(p.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
		if err != nil {
			return nil, err
		}
		defer file.Close()
		p.cmd.Stdout, p.cmd.Stderr = file, file
	}
	if w.Outlive {
		p.cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	}
	if err := p.cmd.Start(); err != nil {
		return nil, fmt.Errorf("cannot start %s: %w", name, err)
	}
	go func() {
		_ = p.cmd.Wait()
		close(p.exited)
	}()
	if w.Started != nil {
		if err := w.Started(name, p.Pid()); err != nil {
			p.Kill()
			return nil, err
		}
	}
	return p, nil
}

// Pid is its id.
func (p *Process) Pid() int { return p.cmd.Process.Pid }

// Signal sends it a signal.
func (p *Process) Signal(signal syscall.Signal) { _ = p.cmd.Process.Signal(signal) }

// Stop ends it and says whether it went by itself.
func (p *Process) Stop() bool {
	p.Signal(syscall.SIGTERM)
	if p.EndsWithin(StopBound) {
		return true
	}
	p.Kill()
	return false
}

// Kill ends it without asking.
func (p *Process) Kill() {
	p.Signal(syscall.SIGKILL)
	<-p.exited
}

// EndsWithin waits for its end.
func (p *Process) EndsWithin(bound time.Duration) bool {
	return Eventually(bound, func() bool { return !p.Alive() })
}

// Alive says whether it runs.
func (p *Process) Alive() bool {
	select {
	case <-p.exited:
		return false
	default:
		return true
	}
}

// ExitCode is what it ended with.
func (p *Process) ExitCode() int { return p.cmd.ProcessState.ExitCode() }

// EndSignal is the signal that ended it; -1 where it ended by itself.
func (p *Process) EndSignal() syscall.Signal {
	if status, ok := p.cmd.ProcessState.Sys().(syscall.WaitStatus); ok {
		return status.Signal()
	}
	return -1
}

// Printed is all that it printed.
func (p *Process) Printed() string {
	if p.log == "" {
		return p.Stdout.String() + p.Stderr.String()
	}
	text, err := os.ReadFile(p.log)
	if err != nil {
		return err.Error()
	}
	return string(text)
}

// Until waits until it is ready; the last reason why not is told where it never is.
func (p *Process) Until(ready func() error) error {
	var last error
	done := Eventually(StartBound, func() bool {
		last = ready()
		return last == nil || !p.Alive()
	})
	switch {
	case !p.Alive():
		return fmt.Errorf("it has ended: %s", Tail(p.Printed()))
	case !done:
		return fmt.Errorf("it is not ready after %v: %w: %s", StartBound, last, Tail(p.Printed()))
	default:
		return nil
	}
}

// Tail is the end of a long text.
func Tail(text string) string {
	const most = 4_000
	if len(text) <= most {
		return text
	}
	return "[...]" + text[len(text)-most:]
}
