package e2e_test

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"vault-kube-kms.test/cluster"
	"vault-kube-kms.test/parts"
	"vault-kube-kms.test/suite"
)

// TestChecklist73_TextsOfTheKeeperAreNotPassedOn expects that a user gets the plugin's text of a failure, and
// never a text of the keeper.
func TestChecklist73_TextsOfTheKeeperAreNotPassedOn(t *testing.T) {
	t.Parallel()
	const marker = "canary-of-the-keeper"
	var via *liar
	c := start(t, func(s *cluster.Settings) {
		s.Route = func(b *parts.OpenBao) (string, string) {
			via = newLiar(t, b, marker)
			return via.address, via.caFile
		}
	})
	c.api.mustCreate(t, "one")
	seed := c.stored(t)[0].object(t, cluster.Provider).EncryptedDEKSource
	for _, status := range []int{400, 403, 500, 502} {
		via.answer(seed, status)
		// A restarted API server has no seed and must ask the plugin.
		c.api.Kill()
		must(t, c.api.Launch())
		must(t, c.api.UntilOK(serves))
		c.api.waitFor(t, kmsReady, http.StatusOK, time.Minute)
		code, text := c.api.answers(secrets + "/one")
		t.Logf("the keeper answers %d, and a user gets: %d %s", status, code, text)
		if code != http.StatusInternalServerError || !strings.Contains(text, "failed to decrypt DEK") {
			t.Errorf("a user gets %d %s", code, text)
		}
		if strings.Contains(text+c.plugin.Printed(), marker) {
			t.Errorf("a text of the keeper is passed on: %s", text)
		}
	}
	via.answer(nil, 0)
	c.api.waitFor(t, secrets+"/one", http.StatusOK, time.Minute)
	c.api.requireReads(t, "one")
}

// liar is a proxy in front of OpenBao. It gives its own answer for one ciphertext.
type liar struct {
	address, caFile string

	mu         sync.Mutex
	ciphertext []byte
	status     int
}

func newLiar(t *testing.T, b *parts.OpenBao, marker string) *liar {
	t.Helper()
	l := &liar{}
	front := suite.Front{Days: 1, Answer: func(w http.ResponseWriter, r *http.Request) bool {
		body, err := io.ReadAll(r.Body)
		r.Body = io.NopCloser(bytes.NewReader(body))
		status := l.about(body)
		if err == nil && status != 0 {
			w.WriteHeader(status)
			fmt.Fprintf(w, `{"errors":["%s: %s"]}`, marker, marker)
		}
		return err != nil || status != 0
	}}
	served := front.Serve(t, b)
	l.address, l.caFile = served.Address, served.CAFile
	return l
}

// answer sets the status for all requests with the ciphertext. 0 forwards them.
func (l *liar) answer(ciphertext []byte, status int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.ciphertext, l.status = ciphertext, status
}

func (l *liar) about(body []byte) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.status == 0 || !bytes.Contains(body, l.ciphertext) {
		return 0
	}
	return l.status
}
