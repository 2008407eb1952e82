package hostile_test

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"

	"k8s.io/kms/pkg/service"

	"vault-kube-kms.test/suite"
)

// TestSecretsDoNotStayInMemory wraps and unwraps 200 seeds, and then one more until it fills the buffers of its
// connections. It expects that memory holds only the seeds in live buffers (SECURITY.md).
const (
	seeds       = 200
	markerTimes = 60
	// The read and write buffers of HTTP/2 hold the last calls of a connection.
	markerRawMost = 32
	// The HTTP/1 buffers to the keeper hold its last answer and request.
	markerBase64Most = 2
	// One copy stays on purpose, to detect a change of its file.
	secretIDMost = 1
	// One copy stays on purpose. Others are in the heads of the last requests.
	tokenMost = 5
)

// token matches OpenBao's tokens.
var token = regexp.MustCompile(`\bs\.[A-Za-z0-9]{24}\b`)

func TestSecretsDoNotStayInMemory(t *testing.T) {
	if os.Getuid() != 0 {
		suite.Skip(t, "ONLY ROOT MAY READ THE MEMORY OF ANOTHER PROCESS")
	}
	tenant, secretID := newTenant(t)
	p := start(t, tenant.Flags()...)
	client := p.client(t)
	through := func(seed []byte) {
		sealed, err := client.Encrypt(t.Context(), "memory", seed)
		must(t, err)
		_, err = client.Decrypt(t.Context(), "memory", &service.DecryptRequest{
			Ciphertext: sealed.Ciphertext, KeyID: sealed.KeyID, Annotations: sealed.Annotations,
		})
		must(t, err)
	}
	var old [][]byte
	for range seeds {
		old = append(old, seed())
		through(old[len(old)-1])
	}
	marker := seed()
	for range markerTimes {
		through(marker)
	}

	memory := p.writable(t)
	count := func(what []byte) int { return bytes.Count(memory, what) }
	coded := func(seed []byte) []byte { return []byte(base64.StdEncoding.EncodeToString(seed)) }
	oldRaw, oldBase64 := 0, 0
	for _, seed := range old {
		oldRaw += min(1, count(seed))
		oldBase64 += min(1, count(coded(seed)))
	}
	t.Logf("of %d seeds: %d raw, %d in base64; marker: %d raw, %d in base64; secret ID: %d; tokens: %d; resident: %.1f MiB",
		seeds, oldRaw, oldBase64, count(marker), count(coded(marker)), count([]byte(secretID)), len(token.FindAll(memory, -1)),
		float64(p.memory(t, "VmRSS"))/(1<<20))
	for _, bar := range []struct {
		what       string
		found, bar int
	}{
		{"seeds", oldRaw, 0},
		{"seeds in base64", oldBase64, 0},
		{"the last seed", count(marker), markerRawMost},
		{"the last seed in base64", count(coded(marker)), markerBase64Most},
		{"the secret ID", count([]byte(secretID)), secretIDMost},
		{"tokens", len(token.FindAll(memory, -1)), tokenMost},
	} {
		if bar.found > bar.bar {
			t.Errorf("%s: %d times in memory, at most %d are expected", bar.what, bar.found, bar.bar)
		}
	}
	// The scan itself must find secrets that are in memory.
	if count(marker) == 0 || count([]byte(secretID)) == 0 {
		t.Error("the scan finds neither the last seed in live buffers nor the secret ID")
	}
}

// writable returns all writable memory of the process.
func (p *plugin) writable(t *testing.T) []byte {
	t.Helper()
	mem, err := os.Open(fmt.Sprintf("/proc/%d/mem", p.Pid()))
	must(t, err)
	defer mem.Close()
	var all []byte
	for line := range strings.Lines(p.file(t, "maps")) {
		var from, to uint64
		var mode string
		if _, err := fmt.Sscanf(line, "%x-%x %s", &from, &to, &mode); err != nil {
			t.Fatal(err)
		}
		if !strings.HasPrefix(mode, "rw") {
			continue
		}
		part := make([]byte, to-from)
		// A mapping may have ended since the list was read.
		if _, err := mem.ReadAt(part, int64(from)); err == nil {
			all = append(all, part...)
		}
	}
	return all
}
