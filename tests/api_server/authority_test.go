package apiserver_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
	"google.golang.org/grpc"
	kmsapi "k8s.io/kms/apis/v2"

	"vault-kube-kms.test/parts"
)

// API servers before 1.32 send the encoded path of the socket as :authority.
func TestChecklist03_AuthorityOfOldAPIServers(t *testing.T) {
	t.Parallel()
	flags := localFlags(t)
	file, metrics := metered(t, flags)
	if count, _ := counted(t, metrics, "vault_kube_kms_authority_rewritten_total"); count != 0 {
		t.Errorf("%v connections of an API server since 1.32 count as old", count)
	}
	abstract := launch(t, "unix:///@vkk-"+parts.RandomName(), flags)
	abstract.waitHealthy(t)
	for _, p := range []*plugin{file, abstract} {
		// Without this option, grpc-go derives the authority from the address.
		client := kmsapi.NewKeyManagementServiceClient(p.conn(t))
		ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
		defer cancel()
		// After this number of calls the authority leaves the peer's dynamic table and comes again as a literal.
		for n := range 500 {
			if _, err := client.Status(ctx, &kmsapi.StatusRequest{}, grpc.WaitForReady(true)); err != nil {
				t.Fatalf("call %d on %s: %v", n, p.endpoint, err)
			}
		}
		p.requireHealthy(t)
	}
	if count, _ := counted(t, metrics, "vault_kube_kms_authority_rewritten_total"); count != 1 {
		t.Errorf("%v connections of an old API server are counted, one was made", count)
	}
}

// TestAuthoritiesAsRawFrames sends each form of an authority for a Unix socket, in each encoding, and expects an
// answer.
func TestAuthoritiesAsRawFrames(t *testing.T) {
	t.Parallel()
	p := start(t, localFlags(t))
	path := p.address()
	for _, authority := range []string{
		"localhost", "kms.sock", "@kms", "localhost:80", // which the HTTP/2 library takes as they are
		none, // which is not sent at all
		path, url.PathEscape(path), "%40kms", "@/run/x", "unix:" + path, "passthrough:///x", "unix://" + path,
	} {
		for _, way := range ways {
			t.Run(authority+" "+way.name, func(t *testing.T) {
				t.Parallel()
				c := dialRaw(t, p)
				for n := range 3 {
					if answer := c.ask(t, authority, way); answer != "200" {
						t.Errorf("request %d is answered with %s", n, answer)
					}
				}
			})
		}
	}
}

// TestInvalidAuthoritiesAreRefused expects that an invalid authority that cannot be corrected is refused.
func TestInvalidAuthoritiesAreRefused(t *testing.T) {
	t.Parallel()
	p := start(t, localFlags(t))
	for _, authority := range []string{"", "#", "`", "a\x00b", "\xff\xfe", "é"} {
		t.Run(fmt.Sprintf("%q", authority), func(t *testing.T) {
			t.Parallel()
			c := dialRaw(t, p)
			if answer := c.ask(t, authority, ways[0]); !strings.HasSuffix(answer, "PROTOCOL_ERROR") {
				t.Errorf("the answer is %s", answer)
			}
			p.requireHealthy(t)
		})
	}
}

// TestHostileFrames expects that malformed frames end only their own connection.
func TestHostileFrames(t *testing.T) {
	t.Parallel()
	p := start(t, localFlags(t))
	bystander := dialRaw(t, p)
	fields := func(c *rawConn) []byte { return bytes.Clone(c.block("%2Frun%2Fx", ways[0])) }
	headers := func(c *rawConn, block []byte, end bool) error {
		return c.framer.WriteHeaders(http2.HeadersFrameParam{
			StreamID: c.stream, BlockFragment: block, EndHeaders: end, EndStream: true,
		})
	}
	for name, send := range map[string]func(c *rawConn) error{
		"half a request, then another frame": func(c *rawConn) error {
			return errors.Join(headers(c, fields(c)[:7], false), c.framer.WritePing(false, [8]byte{}))
		},
		"a continuation of another stream": func(c *rawConn) error {
			block := fields(c)
			return errors.Join(headers(c, block[:7], false), c.framer.WriteContinuation(c.stream+2, true, block[7:]))
		},
		"a continuation of nothing": func(c *rawConn) error {
			return c.framer.WriteContinuation(c.stream, true, fields(c))
		},
		"continuations without end": func(c *rawConn) error {
			err := headers(c, fields(c), false)
			for range 4_000 {
				err = errors.Join(err, c.framer.WriteContinuation(c.stream, false, nil))
			}
			return err
		},
		"an integer without end": func(c *rawConn) error {
			return headers(c, append([]byte{0x41}, bytes.Repeat([]byte{0xff}, 64)...), true)
		},
		"a text that ends behind the block": func(c *rawConn) error {
			return headers(c, []byte{0x41, 0x7f, 0xff, 0x7f, '/'}, true)
		},
		"bad Huffman padding": func(c *rawConn) error { return headers(c, []byte{0x41, 0x81, 0x00}, true) },
		"an index that does not exist": func(c *rawConn) error {
			return headers(c, append(fields(c), 0xff, 0x20), true)
		},
		"padding longer than the frame": func(c *rawConn) error {
			return c.framer.WriteRawFrame(http2.FrameHeaders, http2.FlagHeadersPadded|http2.FlagHeadersEndHeaders, c.stream, []byte{200, 0x41, 1, '/'})
		},
		"a frame over the size that is allowed": func(c *rawConn) error {
			return c.framer.WriteRawFrame(http2.FrameHeaders, http2.FlagHeadersEndHeaders, c.stream, make([]byte, 1<<20))
		},
		"priority cut off": func(c *rawConn) error {
			return c.framer.WriteRawFrame(http2.FrameHeaders, http2.FlagHeadersPriority|http2.FlagHeadersEndHeaders, c.stream, []byte{0, 0})
		},
	} {
		t.Run(name, func(t *testing.T) {
			c := dialRaw(t, p)
			// The server may end the connection before the test has sent everything.
			_ = send(c)
			if answer := c.read(); answer == "200" || answer == "silence" {
				t.Errorf("the answer is %s", answer)
			}
			if answer := bystander.ask(t, "%2Frun%2Fx", ways[0]); answer != "200" {
				t.Errorf("another connection is answered with %s", answer)
			}
			p.requireHealthy(t)
		})
	}
}

// none means no authority.
const none = "none"

// way is an encoding of the same header fields.
type way struct {
	name             string
	plain, unindexed bool
	padding          uint8
	priority         bool
	// pieces are the sizes of the frames of the block. The last frame takes the rest.
	pieces []int
}

var ways = []way{
	{name: "Huffman-coded"},
	{name: "plain", plain: true},
	{name: "never indexed", unindexed: true},
	{name: "with padding and priority", padding: 17, priority: true},
	{name: "in CONTINUATION frames", pieces: []int{3, 5, 1, 0, 8}},
	{name: "plain in CONTINUATION frames", plain: true, pieces: []int{1, 1, 9}},
}

// rawConn is a connection on which the test writes its own frames.
type rawConn struct {
	conn    net.Conn
	framer  *http2.Framer
	encoder *hpack.Encoder
	encoded bytes.Buffer
	stream  uint32
}

func dialRaw(t *testing.T, p *plugin) *rawConn {
	t.Helper()
	conn, err := net.Dial("unix", p.address())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	c := &rawConn{conn: conn, framer: http2.NewFramer(conn, conn), stream: 1}
	c.framer.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	c.framer.AllowIllegalWrites = true
	c.encoder = hpack.NewEncoder(&c.encoded)
	if _, err := conn.Write([]byte(http2.ClientPreface)); err != nil {
		t.Fatal(err)
	}
	if err := c.framer.WriteSettings(); err != nil {
		t.Fatal(err)
	}
	return c
}

// block returns the header block of a Status call.
func (c *rawConn) block(authority string, way way) []byte {
	c.encoded.Reset()
	fields := []hpack.HeaderField{
		{Name: ":method", Value: "POST"},
		{Name: ":scheme", Value: "http"},
		{Name: ":path", Value: "/v2.KeyManagementService/Status"},
		{Name: ":authority", Value: authority, Sensitive: way.unindexed},
		{Name: "content-type", Value: "application/grpc"},
		{Name: "te", Value: "trailers"},
	}
	for _, field := range fields {
		if field.Value == none {
			continue
		}
		if way.plain && field.Name == ":authority" {
			// A literal with incremental indexing, which the encoder would always compress; its
			// length may need a second octet.
			c.encoded.WriteByte(0x41)
			if len(authority) < 0x7f {
				c.encoded.WriteByte(byte(len(authority)))
			} else {
				c.encoded.Write([]byte{0x7f, byte(len(authority) - 0x7f)})
			}
			c.encoded.WriteString(authority)
			// Now the encoder's table differs from the server's, so no further field may be indexed.
			continue
		}
		if way.plain {
			field.Sensitive = true
		}
		_ = c.encoder.WriteField(field)
	}
	return c.encoded.Bytes()
}

// ask sends a Status call and returns the status of the answer, or the error it is reset with.
func (c *rawConn) ask(t *testing.T, authority string, way way) string {
	t.Helper()
	block := c.block(authority, way)
	parts := [][]byte{}
	for _, size := range way.pieces {
		size = min(size, len(block))
		parts, block = append(parts, block[:size]), block[size:]
	}
	parts = append(parts, block)
	first := http2.HeadersFrameParam{
		StreamID: c.stream, BlockFragment: parts[0], EndHeaders: len(parts) == 1, PadLength: way.padding,
	}
	if way.priority {
		first.Priority = http2.PriorityParam{Weight: 7}
	}
	err := c.framer.WriteHeaders(first)
	for index, part := range parts[1:] {
		err = errors.Join(err, c.framer.WriteContinuation(c.stream, index == len(parts)-2, part))
	}
	// An empty message.
	err = errors.Join(err, c.framer.WriteData(c.stream, true, make([]byte, 5)))
	// A server that refuses the headers may close before the rest is written. It has sent the reason.
	if err != nil && !errors.Is(err, syscall.EPIPE) {
		t.Fatal(err)
	}
	c.stream += 2
	return c.read()
}

// read returns the server's answer to the last request: a status, the reason of a reset, or the end of the
// connection.
func (c *rawConn) read() string {
	if err := c.conn.SetReadDeadline(time.Now().Add(startBound)); err != nil {
		return err.Error()
	}
	answer := "silence"
	for {
		frame, err := c.framer.ReadFrame()
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return answer
		}
		if err != nil {
			return "the end of the connection"
		}
		switch frame := frame.(type) {
		case *http2.MetaHeadersFrame:
			if status := frame.PseudoValue("status"); status != "" {
				answer = status
			}
			if frame.StreamEnded() {
				return answer
			}
		case *http2.RSTStreamFrame:
			if frame.ErrCode != http2.ErrCodeNo {
				return frame.ErrCode.String()
			}
			return answer
		case *http2.GoAwayFrame:
			return "GOAWAY " + frame.ErrCode.String()
		}
	}
}
