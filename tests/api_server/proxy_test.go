package apiserver_test

import (
	"bytes"
	"io"
	"net/http"
	"sync"
	"testing"

	"vault-kube-kms.test/suite"
)

// laggard is a proxy in front of OpenBao. It can answer with an older state of one key, as a lagging replica
// does.
type laggard struct {
	address, caFile string

	mu       sync.Mutex
	last     []byte
	old      []byte
	replayed int
}

func newLaggard(t *testing.T, n *tenant) *laggard { return laggardUntil(t, n, 365) }

// laggardUntil starts a laggard whose certificate is valid for this number of days.
func laggardUntil(t *testing.T, n *tenant, days int) *laggard {
	t.Helper()
	l := &laggard{}
	front := suite.Front{
		Days: days,
		Answer: func(w http.ResponseWriter, r *http.Request) bool {
			return isKeyRead(r, n.Key) && l.replay(w)
		},
		See: func(response *http.Response) error {
			if !isKeyRead(response.Request, n.Key) || response.StatusCode != http.StatusOK {
				return nil
			}
			body, err := io.ReadAll(response.Body)
			_ = response.Body.Close()
			response.Body = io.NopCloser(bytes.NewReader(body))
			l.mu.Lock()
			defer l.mu.Unlock()
			l.last = body
			return err
		},
	}
	served := front.Serve(t, n.Bao)
	l.address, l.caFile = served.Address, served.CAFile
	return l
}

func isKeyRead(r *http.Request, key string) bool {
	return r.Method == http.MethodGet && r.URL.Path == "/v1/transit/keys/"+key
}

// replay answers with the older state, if one is set.
func (l *laggard) replay(w http.ResponseWriter) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.old == nil {
		return false
	}
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write(l.old)
	l.replayed++
	return true
}

// remember returns the last answered state of the key.
func (l *laggard) remember(t *testing.T) []byte {
	t.Helper()
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.last == nil {
		t.Fatal("the server has not answered yet")
	}
	return l.last
}

// answer sets the older state for later answers, or none.
func (l *laggard) answer(old []byte) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.old = old
}

// replays returns the number of answers with the older state.
func (l *laggard) replays() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.replayed
}

func (l *laggard) flags(n *tenant) []string {
	return with(n.FlagsVia(l.address), "--tls-ca-file="+l.caFile)
}
