package faults_test

import (
	"bytes"
	"context"
	"crypto/rand"
	mathrand "math/rand/v2"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"k8s.io/apiserver/pkg/storage/value/encrypt/envelope/kmsv2"
	"k8s.io/kms/pkg/service"

	"vault-kube-kms.test/parts"
)

const (
	// callTimeout is kube-apiserver's default time limit of a call.
	callTimeout = 3 * time.Second
	// These numbers are the load of a busy API server.
	workers = 4
	pause   = 80 * time.Millisecond
	// What is stored before a fault.
	storedFirst = 64
)

// stored is the plaintext and the answer of one Encrypt.
type stored struct {
	sealed    *service.EncryptResponse
	plaintext []byte
}

// load calls a plugin without pause, as API servers do, and checks every plaintext.
type load struct {
	t      *testing.T
	client service.Service
	ledger ledger

	ctx    context.Context
	stop   context.CancelFunc
	worked sync.WaitGroup

	mu     sync.Mutex
	stored []stored
}

// newLoad stores some objects and starts a load, which runs until its end is called.
func newLoad(t *testing.T, endpoint string) *load {
	t.Helper()
	client, err := kmsv2.NewGRPCService(t.Context(), endpoint, "test", callTimeout)
	must(t, err)
	l := &load{t: t, client: client}
	l.ctx, l.stop = context.WithCancel(t.Context())
	for range storedFirst {
		l.seal()
	}
	l.work(workers)
	l.forEver(l.status)
	t.Cleanup(l.end)
	return l
}

// work starts this number of workers.
func (l *load) work(workers int) {
	for range workers {
		l.forEver(func() {
			if one, ok := l.seal(); ok {
				l.open(one)
			}
			l.open(l.some())
		})
	}
}

func (l *load) forEver(do func()) {
	l.worked.Go(func() {
		for l.ctx.Err() == nil {
			do()
			select {
			case <-l.ctx.Done():
			// Workers with equal pauses would leave the keeper idle between their calls.
			case <-time.After(pause/2 + mathrand.N(pause)):
			}
		}
	})
}

// end ends all calls.
func (l *load) end() {
	l.stop()
	l.worked.Wait()
}

func (l *load) seal() (one stored, ok bool) {
	one.plaintext = make([]byte, 32)
	_, _ = rand.Read(one.plaintext)
	asked := time.Now()
	sealed, err := l.client.Encrypt(l.ctx, "load", one.plaintext)
	l.note("Encrypt", asked, err)
	if err != nil {
		return one, false
	}
	one.sealed = sealed
	l.mu.Lock()
	defer l.mu.Unlock()
	l.stored = append(l.stored, one)
	return one, true
}

// open decrypts a stored object. A wrong plaintext ends the test at once.
func (l *load) open(one stored) {
	if one.sealed == nil {
		return
	}
	asked := time.Now()
	opened, err := l.client.Decrypt(l.ctx, "load", asStored(one.sealed))
	l.note("Decrypt", asked, err)
	if err == nil && !bytes.Equal(opened, one.plaintext) {
		l.t.Errorf("WRONG PLAINTEXT for what was stored under %s", one.sealed.KeyID)
		l.stop()
	}
}

func (l *load) status() {
	asked := time.Now()
	answer, err := l.client.Status(l.ctx)
	if err == nil && answer.Healthz != "ok" {
		l.ledger.note("Status", asked, "unhealthy", answer.Healthz)
		return
	}
	l.note("Status", asked, err)
}

// note records the result of a call, except for a call that the end of the load has cancelled.
func (l *load) note(method string, asked time.Time, err error) {
	switch {
	case err == nil:
		l.ledger.note(method, asked, "", "")
	case l.ctx.Err() == nil:
		l.ledger.note(method, asked, status.Code(err).String(), status.Convert(err).Message())
	}
}

// some returns a random stored object, old or new.
func (l *load) some() stored {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.stored) == 0 {
		return stored{}
	}
	return l.stored[mathrand.IntN(len(l.stored))]
}

// firstAndNewest returns the objects that were stored before the fault, and the last one.
func (l *load) firstAndNewest(count int) []stored {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.stored) <= 2*count {
		return append([]stored(nil), l.stored...)
	}
	return append(append([]stored(nil), l.stored[:count]...), l.stored[len(l.stored)-count:]...)
}

// read decrypts one stored object, outside of the load.
func (l *load) read(one stored) error {
	opened, err := l.client.Decrypt(l.t.Context(), "after", asStored(one.sealed))
	if err == nil && !bytes.Equal(opened, one.plaintext) {
		l.t.Errorf("WRONG PLAINTEXT for what was stored under %s", one.sealed.KeyID)
	}
	return err
}

// slowReads is how long an object may take to be read after a recovery. The load measures recoveries; this only
// bounds the reads on a slow machine.
const slowReads = 30 * time.Second

// requireReads requires that all these objects decrypt to their plaintexts. It repeats a read that took too long or
// that met an outage, as the API server does, and no other one: on a busy machine the keeper holds elections of its own.
func (l *load) requireReads(all []stored) {
	l.t.Helper()
	for _, one := range all {
		var err error
		parts.Eventually(slowReads, func() bool {
			err = l.read(one)
			return status.Code(err) != codes.DeadlineExceeded && status.Code(err) != codes.Unavailable
		})
		if err != nil {
			l.t.Errorf("an object that was stored under %s is not read: %v", one.sealed.KeyID, err)
			return
		}
	}
}

// asStored returns the Decrypt request that the API server makes from an answer of Encrypt.
func asStored(sealed *service.EncryptResponse) *service.DecryptRequest {
	return &service.DecryptRequest{
		Ciphertext: sealed.Ciphertext, KeyID: sealed.KeyID, Annotations: sealed.Annotations,
	}
}
