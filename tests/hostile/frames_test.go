package hostile_test

import (
	"bytes"
	"encoding/binary"
	"io"
	"net"
	"sync"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// frames is a connection on which the test writes its own frames. Its methods return the error that ends the
// connection.
type frames struct {
	net.Conn
	*http2.Framer
	encoder *hpack.Encoder
	encoded bytes.Buffer
	stream  uint32
	// room is the number of bytes that the peer's window allows.
	mu   sync.Mutex
	room int
	more *sync.Cond
	gone bool
}

// dial connects and sends the HTTP/2 preface.
func (p *plugin) dial(settings ...http2.Setting) (*frames, error) {
	conn, err := net.DialTimeout("unix", p.socket, callTimeout)
	if err != nil {
		return nil, err
	}
	f := &frames{Conn: conn, Framer: http2.NewFramer(conn, conn), stream: 1, room: 65_535}
	f.more = sync.NewCond(&f.mu)
	f.AllowIllegalWrites = true
	f.encoder = hpack.NewEncoder(&f.encoded)
	if _, err = io.WriteString(conn, http2.ClientPreface); err == nil {
		err = f.WriteSettings(settings...)
	}
	if err != nil {
		_ = conn.Close()
	}
	return f, err
}

// read reads frames until the connection ends. It answers PINGs and records the window.
func (f *frames) read() {
	for {
		frame, err := f.ReadFrame()
		f.mu.Lock()
		switch frame := frame.(type) {
		case *http2.WindowUpdateFrame:
			if frame.StreamID == 0 {
				f.room += int(frame.Increment)
			}
		case *http2.PingFrame:
			if !frame.IsAck() {
				_ = f.WritePing(true, frame.Data)
			}
		}
		f.gone = err != nil
		f.more.Broadcast()
		f.mu.Unlock()
		if err != nil {
			return
		}
	}
}

// block returns the header block of a call with further headers.
func (f *frames) block(method string, more ...hpack.HeaderField) []byte {
	f.encoded.Reset()
	for _, field := range append([]hpack.HeaderField{
		{Name: ":method", Value: "POST"}, {Name: ":scheme", Value: "http"},
		{Name: ":path", Value: "/v2.KeyManagementService/" + method}, {Name: ":authority", Value: "localhost"},
		{Name: "content-type", Value: "application/grpc"}, {Name: "te", Value: "trailers"},
	}, more...) {
		_ = f.encoder.WriteField(field)
	}
	return f.encoded.Bytes()
}

// begin begins a call with further headers and returns its stream.
func (f *frames) begin(method string, more ...hpack.HeaderField) (uint32, error) {
	stream := f.stream
	f.stream += 2
	f.mu.Lock()
	defer f.mu.Unlock()
	return stream, f.WriteHeaders(http2.HeadersFrameParam{StreamID: stream, BlockFragment: f.block(method, more...), EndHeaders: true})
}

// send sends a part of a call's message, as fast as the peer's window allows.
func (f *frames) send(stream uint32, message []byte, end bool) error {
	for len(message) > 0 {
		size := min(16_384, len(message))
		f.mu.Lock()
		for f.room < size && !f.gone {
			f.more.Wait()
		}
		if f.gone {
			f.mu.Unlock()
			return io.ErrClosedPipe
		}
		f.room -= size
		err := f.WriteData(stream, end && size == len(message), message[:size])
		f.mu.Unlock()
		if err != nil {
			return err
		}
		message = message[size:]
	}
	return nil
}

// message returns the first `sent` bytes of a gRPC message whose head announces more.
func message(length, sent int) []byte {
	message := make([]byte, 5+sent)
	binary.BigEndian.PutUint32(message[1:], uint32(length))
	return message
}

// unread closes the connection when the flood ends, so that a blocked write ends too.
func (f *frames) unread(done <-chan struct{}) {
	<-done
	_ = f.SetDeadline(time.Now())
	_ = f.Conn.Close()
}
