package cluster

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"vault-kube-kms.test/parts"
)

// State is the recorded state of a cluster, for later processes.
type State struct {
	Processes  []Running
	OpenBao    *Access `json:",omitempty"`
	APIServers []Access
}

// Running is a process. Its start time tells it apart from a later process with the same id.
type Running struct {
	Name  string
	Pid   int
	Began string
}

// Access is a server, the file of its authority, and a token with all rights.
type Access struct{ URL, CAFile, Token string }

// Load reads the state from a folder. It returns fs.ErrNotExist if there is none.
func Load(dir string) (*State, error) {
	text, err := os.ReadFile(stateFile(dir))
	if err != nil {
		return nil, err
	}
	state := &State{}
	return state, json.Unmarshal(text, state)
}

// Alive reports whether any of its processes runs.
func (s *State) Alive() bool { return slices.ContainsFunc(s.Processes, Running.Alive) }

// End ends the cluster of a folder, and removes the folder. It ends only the recorded processes.
func End(dir string, say func(string)) error {
	state, err := Load(dir)
	if errors.Is(err, fs.ErrNotExist) {
		say("nothing runs")
		return nil
	}
	if err != nil {
		return err
	}
	for _, process := range slices.Backward(state.Processes) {
		say(fmt.Sprintf("%-17s %s", process.Name, process.end()))
	}
	if state.Alive() {
		return errors.New("not all have ended; what is left is in " + stateFile(dir))
	}
	return os.RemoveAll(dir)
}

// Alive reports whether it runs.
func (r Running) Alive() bool { return r.Began != "" && r.Began == began(r.Pid) }

func (r Running) end() string {
	gone := func() bool { return !r.Alive() }
	if gone() {
		return "had ended"
	}
	_ = syscall.Kill(r.Pid, syscall.SIGTERM)
	if parts.Eventually(parts.StopBound, gone) {
		return "ended"
	}
	_ = syscall.Kill(r.Pid, syscall.SIGKILL)
	if parts.Eventually(time.Second, gone) {
		return "killed"
	}
	return fmt.Sprintf("DOES NOT END (pid %d)", r.Pid)
}

func (s *State) add(dir, name string, pid int) error {
	s.Processes = append(s.Processes, Running{name, pid, began(pid)})
	text, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		return err
	}
	draft := stateFile(dir) + ".new"
	if err := os.WriteFile(draft, text, 0o600); err != nil {
		return err
	}
	return os.Rename(draft, stateFile(dir))
}

func stateFile(dir string) string { return filepath.Join(dir, "state.json") }

// began returns the start time of a process, in ticks since the boot. It is empty if the process does not run.
func began(pid int) string {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return ""
	}
	// The second field is the program's name, which may contain any character. After it come the state and, as
	// the 22nd field, the time.
	_, rest, _ := strings.Cut(string(text[strings.LastIndexByte(string(text), ')')+1:]), " ")
	fields := strings.Fields(rest)
	if len(fields) < 20 || fields[0] == "Z" {
		return ""
	}
	return fields[19]
}
