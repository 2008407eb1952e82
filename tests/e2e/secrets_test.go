package e2e_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"vault-kube-kms.test/parts"
)

const secrets = "/api/v1/namespaces/default/secrets"

// api is an API server and the calls that store and read Secrets.
type api struct{ *parts.APIServer }

// secret is a Secret with one value.
type secret struct {
	APIVersion string            `json:"apiVersion"`
	Kind       string            `json:"kind"`
	Metadata   metadata          `json:"metadata"`
	Data       map[string][]byte `json:"data"`
}

type metadata struct {
	Name            string `json:"name"`
	ResourceVersion string `json:"resourceVersion,omitempty"`
}

// value returns the text that tests write into the Secret of this name.
func value(name string) string { return "canary-of-" + name }

// valueKey is the key of the value in the Secret's data.
const valueKey = "value"

// create writes a new Secret.
func (a api) create(name string) error {
	return a.ask("POST", secrets, http.StatusCreated, secret{
		APIVersion: "v1", Kind: "Secret", Metadata: metadata{Name: name},
		Data: map[string][]byte{valueKey: []byte(value(name))},
	}, nil)
}

// read reads a Secret and compares it with what was written.
func (a api) read(name string) (secret, error) {
	var read secret
	err := a.ask("GET", secrets+"/"+name, http.StatusOK, nil, &read)
	if err == nil && string(read.Data[valueKey]) != value(name) {
		err = fmt.Errorf("%s was read as %q", name, read.Data[valueKey])
	}
	return read, err
}

// touch writes a Secret as it was read. It reports whether the API server stored it again.
func (a api) touch(name string) (bool, error) {
	before, err := a.read(name)
	if err != nil {
		return false, err
	}
	before.APIVersion, before.Kind = "v1", "Secret"
	var after secret
	err = a.ask("PUT", secrets+"/"+name, http.StatusOK, before, &after)
	return after.Metadata.ResourceVersion != before.Metadata.ResourceVersion, err
}

// list reads all Secrets and compares each with what was written.
func (a api) list() ([]string, error) {
	var list struct{ Items []secret }
	if err := a.ask("GET", secrets, http.StatusOK, nil, &list); err != nil {
		return nil, err
	}
	names := make([]string, 0, len(list.Items))
	for _, item := range list.Items {
		if string(item.Data[valueKey]) != value(item.Metadata.Name) {
			return nil, fmt.Errorf("%s was read as %q", item.Metadata.Name, item.Data[valueKey])
		}
		names = append(names, item.Metadata.Name)
	}
	return names, nil
}

// ask sends a request and requires this status of the answer.
func (a api) ask(method, path string, expected int, body, answer any) error {
	status, text, err := a.Ask(method, path, body)
	if err != nil {
		return err
	}
	if status != expected {
		return fmt.Errorf("%s %s: %d %s", method, path, status, text)
	}
	if answer == nil {
		return nil
	}
	return json.Unmarshal(text, answer)
}

func (a api) mustCreate(t *testing.T, names ...string) {
	t.Helper()
	for _, name := range names {
		must(t, a.create(name))
	}
}

// requireReads requires that each of these Secrets is read as it was written.
func (a api) requireReads(t *testing.T, names ...string) {
	t.Helper()
	for _, name := range names {
		if _, err := a.read(name); err != nil {
			t.Error(err)
		}
	}
}

// requireList requires this number of Secrets, each as it was written.
func (a api) requireList(t *testing.T, count int) []string {
	t.Helper()
	names, err := a.list()
	if err != nil || len(names) != count {
		t.Fatalf("%d of %d Secrets are listed: %v", len(names), count, err)
	}
	return names
}

// migrate writes all Secrets again, as a storage migration does. It returns the number of Secrets that the API
// server stored again.
func (a api) migrate(t *testing.T) (rewritten int) {
	t.Helper()
	names, err := a.list()
	must(t, err)
	for _, name := range names {
		anew, err := a.touch(name)
		must(t, err)
		if anew {
			rewritten++
		}
	}
	return rewritten
}

// metric returns the sum of a metric over its series with all of these labels.
func (a api) metric(t *testing.T, name string, labels ...string) float64 {
	t.Helper()
	metrics, err := a.Metrics()
	must(t, err)
	sum, _ := metrics.Sum(name, labels...)
	return sum
}

// answers returns the status and the text of a path.
func (a api) answers(path string) (int, string) {
	status, text, err := a.Ask("GET", path, nil)
	return status, errors.Join(err, errors.New(string(text))).Error()
}

// waitFor waits until a path answers with a status.
func (a api) waitFor(t *testing.T, path string, status int, bound time.Duration) {
	t.Helper()
	var last int
	var text string
	if !parts.EventuallyEvery(250*time.Millisecond, bound, func() bool {
		last, text = a.answers(path)
		return last == status
	}) {
		t.Fatalf("%s is not %d after %v but %d %s", path, status, bound, last, text)
	}
}

// load is work that goes on in the background.
type load struct {
	cancel  context.CancelFunc
	workers sync.WaitGroup
	done    atomic.Int32

	mu     sync.Mutex
	failed []error
}

// repeatedly repeats an action in this number of workers, with a pause after each run.
func repeatedly(t *testing.T, workers int, pause time.Duration, work func(name string) error) *load {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	l := &load{cancel: cancel}
	t.Cleanup(func() { l.stop() })
	for worker := range workers {
		l.workers.Go(func() {
			for count := 0; ctx.Err() == nil; count++ {
				if err := work(fmt.Sprintf("load-%d-%d", worker, count)); err != nil {
					l.mu.Lock()
					l.failed = append(l.failed, err)
					l.mu.Unlock()
				}
				l.done.Add(1)
				select {
				case <-ctx.Done():
				case <-time.After(pause):
				}
			}
		})
	}
	return l
}

func (l *load) stop() {
	l.cancel()
	l.workers.Wait()
}

// requireNoFailure ends it. It requires at least one run and no failure.
func (l *load) requireNoFailure(t *testing.T) {
	t.Helper()
	l.stop()
	t.Logf("%d done under load, %d failed", l.done.Load(), len(l.failed))
	if len(l.failed) > 0 || l.done.Load() == 0 {
		t.Errorf("%d of %d failed, the first one with: %v", len(l.failed), l.done.Load(), errors.Join(l.failed[:min(1, len(l.failed))]...))
	}
}
