package apiserver_test

import (
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"testing"

	"vault-kube-kms.test/parts"
)

// forwarder is a TCP proxy between a plugin and its keeper. It can refuse connections, and can hold answers back.
type forwarder struct {
	address, target string
	holding         atomic.Int32

	mu       sync.Mutex
	gate     *sync.Cond
	held     bool
	listener net.Listener
	conns    map[net.Conn]bool
}

// newForwarder returns a forwarder that does not listen yet.
func newForwarder(t *testing.T, target string) *forwarder {
	t.Helper()
	f := &forwarder{
		address: fmt.Sprintf("127.0.0.1:%d", parts.FreePort()),
		target:  target,
		conns:   map[net.Conn]bool{},
	}
	f.gate = sync.NewCond(&f.mu)
	t.Cleanup(func() {
		f.stop()
		f.release()
	})
	return f
}

func (f *forwarder) start(t *testing.T) {
	t.Helper()
	listener, err := net.Listen("tcp", f.address)
	if err != nil {
		t.Fatal(err)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.listener = listener
	go func() {
		for {
			client, err := listener.Accept()
			if err != nil {
				return
			}
			go f.serve(client)
		}
	}()
}

// stop ends the listener and all connections.
func (f *forwarder) stop() {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.listener != nil {
		_ = f.listener.Close()
		f.listener = nil
	}
	for conn := range f.conns {
		_ = conn.Close()
	}
}

// hold keeps answers back until release.
func (f *forwarder) hold() { f.setHeld(true) }

func (f *forwarder) release() { f.setHeld(false) }

func (f *forwarder) setHeld(held bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.held = held
	f.gate.Broadcast()
}

// waiting returns the number of connections whose answer is held back.
func (f *forwarder) waiting() int { return int(f.holding.Load()) }

func (f *forwarder) serve(client net.Conn) {
	server, err := net.Dial("tcp", f.target)
	if err != nil {
		_ = client.Close()
		return
	}
	f.mu.Lock()
	f.conns[client], f.conns[server] = true, true
	if f.listener == nil {
		_ = client.Close()
	}
	f.mu.Unlock()
	go pipe(server, client, func() {})
	pipe(client, server, f.pass)
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.conns, client)
	delete(f.conns, server)
}

// pass returns when answers may go on.
func (f *forwarder) pass() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.holding.Add(1)
	defer f.holding.Add(-1)
	for f.held {
		f.gate.Wait()
	}
}

// pipe copies until either end is closed. It calls `ask` before each write.
func pipe(to, from net.Conn, ask func()) {
	defer to.Close()
	defer from.Close()
	buffer := make([]byte, 32*1024)
	for {
		count, err := from.Read(buffer)
		if err != nil {
			return
		}
		ask()
		if _, err := to.Write(buffer[:count]); err != nil {
			return
		}
	}
}
