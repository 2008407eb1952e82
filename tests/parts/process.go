// Package parts runs the parts of a control plane, each in its own process: the plugin, its keeper, etcd and the
// API server. All of them use only the loopback interface.
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

// These limit the start and the end of a part on a busy machine.
const (
	StartBound = 60 * time.Second
	StopBound  = 10 * time.Second
)

// Way has the settings with which processes run.
type Way struct {
	// Logs is the folder for their output, with a file for each. Empty keeps the output in memory.
	Logs string
	// Outlive lets them run on after the end of this process.
	Outlive bool
	// Passed has files that each process gets as descriptors, from 3 on.
	Passed []*os.File
	// Variables are environment variables of each process, besides PATH.
	Variables []string
	// Started is called with each process as soon as it runs, before it is ready.
	Started func(name string, pid int) error
}

// Process is a running program. Signals go to its own id.
type Process struct {
	Stdout, Stderr Output
	cmd            *exec.Cmd
	log            string
	exited         chan struct{}
}

// Output collects the output of a process. It may be read while the process runs.
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

// Command returns a command that cannot outlive this process and gets none of its variables.
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

// Pid returns its id.
func (p *Process) Pid() int { return p.cmd.Process.Pid }

// Signal sends it a signal.
func (p *Process) Signal(signal syscall.Signal) { _ = p.cmd.Process.Signal(signal) }

// Stop sends SIGTERM and reports whether the process ended by it.
func (p *Process) Stop() bool {
	p.Signal(syscall.SIGTERM)
	if p.EndsWithin(StopBound) {
		return true
	}
	p.Kill()
	return false
}

// Kill ends it with SIGKILL.
func (p *Process) Kill() {
	p.Signal(syscall.SIGKILL)
	<-p.exited
}

// EndsWithin waits for its end and reports whether it came in time.
func (p *Process) EndsWithin(bound time.Duration) bool {
	return Eventually(bound, func() bool { return !p.Alive() })
}

// Alive reports whether it runs.
func (p *Process) Alive() bool {
	select {
	case <-p.exited:
		return false
	default:
		return true
	}
}

// ExitCode returns its exit code.
func (p *Process) ExitCode() int { return p.cmd.ProcessState.ExitCode() }

// EndSignal returns the signal that ended it, or -1 if it ended by itself.
func (p *Process) EndSignal() syscall.Signal {
	if status, ok := p.cmd.ProcessState.Sys().(syscall.WaitStatus); ok {
		return status.Signal()
	}
	return -1
}

// Printed returns all its output.
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

// Until waits until it is ready. On failure the error has the last reason.
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

// Tail returns the end of a long text.
func Tail(text string) string {
	const most = 4_000
	if len(text) <= most {
		return text
	}
	return "[...]" + text[len(text)-most:]
}
