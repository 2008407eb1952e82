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

// State is what is written down of a cluster, for those who come later.
type State struct {
	Processes  []Running
	OpenBao    *Access `json:",omitempty"`
	APIServers []Access
}

// Running is a process, told apart from a later one of the same id by when it began.
type Running struct {
	Name  string
	Pid   int
	Began string
}

// Access is a server, whom to trust for it, and a token that may do everything.
type Access struct{ URL, CAFile, Token string }

// Load reads what is written down in a folder; fs.ErrNotExist where nothing is.
func Load(dir string) (*State, error) {
	text, err := os.ReadFile(stateFile(dir))
	if err != nil {
		return nil, err
	}
	state := &State{}
	return state, json.Unmarshal(text, state)
}

// Alive says whether any of its processes runs.
func (s *State) Alive() bool { return slices.ContainsFunc(s.Processes, Running.Alive) }

// End ends the cluster of a folder, and removes the folder. Nothing is ended but what is written
// down there.
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

// Alive says whether it runs.
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

// began is when a process began, in ticks since the machine did; empty where it does not run.
func began(pid int) string {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return ""
	}
	// The second field is the program's name, which may hold anything; then come the state and,
	// as the 22nd, the time.
	_, rest, _ := strings.Cut(string(text[strings.LastIndexByte(string(text), ')')+1:]), " ")
	fields := strings.Fields(rest)
	if len(fields) < 20 || fields[0] == "Z" {
		return ""
	}
	return fields[19]
}
