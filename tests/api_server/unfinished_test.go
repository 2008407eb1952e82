package apiserver_test

import (
	"encoding/binary"
	"errors"
	"os"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"k8s.io/kms/pkg/service"

	"vault-kube-kms.test/parts"
)

// Fewer requests than the number at which a connection ends (512), with messages of nearly the maximum size.
const (
	conns     = 7
	callsMost = 64
	sentBytes = 35_000
)

// TestUnfinishedRequestsEnd expects that unfinished requests without a time-out end after 30 s. Until
// then they hold no more memory than the limits allow, and the API server's client is served.
func TestUnfinishedRequestsEnd(t *testing.T) {
	t.Parallel()
	p := launch(t, newEndpoint(t), localFlags(t))
	p.waitHealthy(t)
	good := p.client(t)
	before := p.resident(t)
	watch := parts.StartWatch()
	all := make([]*rawConn, conns)
	for index := range all {
		all[index] = dialRaw(t, p)
		all[index].leaveUnfinished(t, callsMost)
	}
	served(t, good)
	if grown := p.resident(t) - before; grown > 80<<20 {
		t.Errorf("unfinished requests hold %d KiB", grown>>10)
	}
	for _, conn := range all {
		conn.waitUntilGivenUp(t, watch)
		served(t, good)
	}
}

// TestSilentConnectionsEnd opens connections that send only the HTTP/2 preface. It expects that new
// connections are accepted, and that the silent ones end.
func TestSilentConnectionsEnd(t *testing.T) {
	t.Parallel()
	p := launch(t, newEndpoint(t), localFlags(t))
	p.waitHealthy(t)
	watch := parts.StartWatch()
	all := make([]*rawConn, 300)
	for index := range all {
		all[index] = dialRaw(t, p)
	}
	served(t, p.client(t))
	for _, conn := range all {
		// These connections do not answer the PING.
		if err := conn.conn.SetReadDeadline(time.Now().Add(watch.Stretched(time.Minute))); err != nil {
			t.Fatal(err)
		}
		for {
			if _, err := conn.framer.ReadFrame(); errors.Is(err, os.ErrDeadlineExceeded) {
				t.Fatal("a connection whose peer answers no PING is open after a minute")
			} else if err != nil {
				break
			}
		}
	}
}

// leaveUnfinished begins this number of calls and sends a part of each message.
func (c *rawConn) leaveUnfinished(t *testing.T, calls int) {
	t.Helper()
	// The number of bytes that may be sent before the server opens the window further.
	window := 65_535
	message := make([]byte, 5+sentBytes)
	// The last byte is never sent.
	binary.BigEndian.PutUint32(message[1:], sentBytes+1)
	for range calls {
		block := c.block("localhost", way{})
		err := c.framer.WriteHeaders(http2.HeadersFrameParam{StreamID: c.stream, BlockFragment: block, EndHeaders: true})
		for rest := message; len(rest) > 0 && err == nil; {
			size := min(16_384, len(rest))
			if window < size {
				window += c.readRoom(t)
				continue
			}
			err = c.framer.WriteData(c.stream, false, rest[:size])
			rest, window = rest[size:], window-size
		}
		if err != nil {
			t.Fatal(err)
		}
		c.stream += 2
	}
}

// readRoom reads one frame, and returns the number of bytes by which it opens the connection's window.
func (c *rawConn) readRoom(t *testing.T) int {
	t.Helper()
	if err := c.conn.SetReadDeadline(time.Now().Add(parts.Stretched(startBound))); err != nil {
		t.Fatal(err)
	}
	frame, err := c.framer.ReadFrame()
	if err != nil {
		t.Fatal("the window is full: ", err)
	}
	if update, is := frame.(*http2.WindowUpdateFrame); is && update.StreamID == 0 {
		return int(update.Increment)
	}
	return 0
}

// waitUntilGivenUp waits until the server has ended each call, or the connection.
func (c *rawConn) waitUntilGivenUp(t *testing.T, watch parts.Watch) {
	t.Helper()
	for open := int(c.stream / 2); open > 0; {
		if err := c.conn.SetReadDeadline(time.Now().Add(watch.Stretched(45 * time.Second))); err != nil {
			t.Fatal(err)
		}
		frame, err := c.framer.ReadFrame()
		if errors.Is(err, os.ErrDeadlineExceeded) {
			t.Fatalf("%d requests are still held after %v", open, watch)
		}
		if err != nil {
			return
		}
		switch frame := frame.(type) {
		case *http2.MetaHeadersFrame:
			if frame.StreamEnded() {
				open--
			}
		case *http2.RSTStreamFrame:
			open--
		case *http2.PingFrame:
			if !frame.IsAck() {
				err = c.framer.WritePing(true, frame.Data)
			}
		}
		if err != nil {
			return
		}
	}
}

// served requires that a call of the API server's own client succeeds.
func served(t *testing.T, client service.Service) {
	t.Helper()
	if _, err := client.Encrypt(t.Context(), "beside", randomBytes(32)); err != nil {
		t.Errorf("a good client beside them: %v", err)
	}
}
