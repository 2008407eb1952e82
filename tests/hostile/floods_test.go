package hostile_test

import (
	"crypto/rand"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"text/tabwriter"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
	"google.golang.org/protobuf/proto"
	kmsapi "k8s.io/kms/apis/v2"

	"vault-kube-kms.test/parts"
	"vault-kube-kms.test/suite"
)

const (
	// The duration of each flood.
	floodTime = 4 * time.Second
	// The maximum of memory: the product of all limits (src/adapters/grpc/server.rs).
	memoryMost = 80 << 20
	// The number of connections that a flood opens in a second.
	dialMost = 1_000
	// Connections that are served, calls on each of them, and bytes of a message: the server's limits.
	servedMost, callsMost, messageMost = 256, 64, 36 << 10
	// The number of unfinished calls from which the server closes connections.
	unfinishedMost = 320
)

// manyHeaders are about as many headers as a list of 2 KiB can have beside those of a call: HTTP/2 counts 32 bytes more
// for each.
var manyHeaders = func() (fields []hpack.HeaderField) {
	for n := range 43 {
		fields = append(fields, hpack.HeaderField{Name: fmt.Sprintf("x%d", n), Value: "1"})
	}
	return fields
}()

// flood is one kind of attack. It runs until `done` is closed, and returns what it has done.
type flood struct {
	name string
	run  func(p *plugin, done <-chan struct{}) outcome
	// least is the number of acts without which the flood has not reached the limit that it is for.
	least int
}

// outcome is the number of connections that a flood has opened, and of its acts on them.
type outcome struct{ opened, acts int }

func (o outcome) String() string {
	if o.acts == 0 {
		return fmt.Sprintf("%d connections", o.opened)
	}
	return fmt.Sprintf("%d on %d connections", o.acts, o.opened)
}

var floods = []flood{
	{"connections, closed at once", func(p *plugin, done <-chan struct{}) outcome {
		return attack(p, done, 8, func(f *frames) { _ = f.Conn.Close() }, func(*frames) int { return 0 })
	}, 0},
	{"connections that are held", func(p *plugin, done <-chan struct{}) outcome {
		return each(p, done, 1_000, func(*frames) int { return 0 })
	}, 0},
	{"streams that are reset", func(p *plugin, done <-chan struct{}) outcome {
		return each(p, done, 4, func(f *frames) int {
			return count(done, func() error {
				stream, err := f.begin("Status")
				if err == nil {
					err = f.WriteRSTStream(stream, http2.ErrCodeCancel)
				}
				return err
			})
		})
	}, 0},
	{"streams that are left open", func(p *plugin, done <-chan struct{}) outcome {
		return each(p, done, 4, func(f *frames) int {
			return count(done, func() error { _, err := f.begin("Encrypt"); return err })
		})
	}, 0},
	{"endless header blocks", func(p *plugin, done <-chan struct{}) outcome {
		return each(p, done, 8, func(f *frames) int {
			err := f.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: f.block("Status")})
			return count(done, func() error {
				if err == nil {
					f.encoded.Reset()
					_ = f.encoder.WriteField(hpack.HeaderField{Name: "x-more", Value: strings.Repeat("x", 4_000)})
					err = f.WriteContinuation(1, false, f.encoded.Bytes())
				}
				return err
			})
		})
	}, 0},
	{"empty CONTINUATION frames", func(p *plugin, done <-chan struct{}) outcome {
		return each(p, done, 4, func(f *frames) int {
			err := f.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: f.block("Status")})
			return count(done, func() error {
				if err == nil {
					err = f.WriteContinuation(1, false, nil)
				}
				return err
			})
		})
	}, 0},
	{"PING, answers not read", func(p *plugin, done <-chan struct{}) outcome {
		return deaf(p, done, 4, func(f *frames) int {
			return count(done, func() error { return f.WritePing(false, [8]byte{1}) })
		})
	}, 0},
	{"SETTINGS, answers not read", func(p *plugin, done <-chan struct{}) outcome {
		return deaf(p, done, 4, func(f *frames) int {
			return count(done, func() error {
				return f.WriteSettings(http2.Setting{ID: http2.SettingHeaderTableSize, Val: 4_096})
			})
		})
	}, 0},
	{"HPACK, one entry 4,000 times", func(p *plugin, done <-chan struct{}) outcome {
		return each(p, done, 4, func(f *frames) int {
			return count(done, func() error {
				// The first entry of the dynamic table, after one that fills it.
				block := append([]byte{}, f.block("Status", hpack.HeaderField{Name: "x-bomb", Value: strings.Repeat("x", 3_500)})...)
				for range 4_000 {
					block = append(block, 0x80|62)
				}
				stream := f.stream
				f.stream += 2
				return f.WriteHeaders(http2.HeadersFrameParam{StreamID: stream, BlockFragment: block, EndHeaders: true})
			})
		})
	}, 0},
	{"half a frame", func(p *plugin, done <-chan struct{}) outcome {
		return each(p, done, 2*servedMost, func(f *frames) int {
			_, _ = f.Conn.Write([]byte{0, 0x10, 0, 0})
			return 0
		})
	}, 0},
	{"half a header block, at all limits", func(p *plugin, done <-chan struct{}) outcome {
		return each(p, done, servedMost-1, func(f *frames) int {
			block := f.block("Encrypt", manyHeaders...)
			if f.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: block}) != nil {
				return 0
			}
			return 1
		})
	}, servedMost - 1},
	{"half a message, at all limits", func(p *plugin, done <-chan struct{}) outcome {
		return each(p, done, servedMost-1, func(f *frames) int {
			return f.beginMost("Encrypt", message(messageMost-1_000, messageMost-1_001), false)
		})
	}, unfinishedMost},
	{"answers that are not taken", func(p *plugin, done <-chan struct{}) outcome {
		return each(p, done, servedMost-1, func(f *frames) int {
			return f.beginMost("Status", message(0, 0), true)
		}, http2.Setting{ID: http2.SettingInitialWindowSize, Val: 0})
	}, unfinishedMost},
}

// beginMost begins as many calls as one connection may have, each with many headers and this part of a message. It
// returns the number of calls.
func (f *frames) beginMost(method string, part []byte, end bool) (begun int) {
	for begun < callsMost {
		stream, err := f.begin(method, manyHeaders...)
		if err != nil || f.send(stream, part, end) != nil {
			break
		}
		begun++
	}
	return begun
}

// TestFloods expects that each flood costs little memory, and that the API server's client is answered within its
// deadline, also on a new connection.
func TestFloods(t *testing.T) {
	raiseLimit(t)
	flags := localFlags(t)
	var table strings.Builder
	rows := tabwriter.NewWriter(&table, 0, 0, 2, ' ', 0)
	fmt.Fprintln(rows, "flood\tdone\tmemory (MiB)\tCPU (s)\tgood calls\tslowest (ms)")
	for _, flood := range floods {
		t.Run(flood.name, func(t *testing.T) {
			p := start(t, flags...)
			good, leave := p.newcomer(t)
			before, cpu := p.memory(t, "VmRSS"), p.cpu(t)
			p.forgetPeak(t)
			done, flooded := make(chan struct{}), make(chan outcome)
			go func() { flooded <- flood.run(p, done) }()
			calls, slowest := 0, time.Duration(0)
			for watch := parts.StartWatch(); watch.Calm() < floodTime; {
				if calls%10 == 9 {
					leave()
					good, leave = p.newcomer(t)
				}
				began := time.Now()
				if _, err := good.Encrypt(t.Context(), "beside", seed()); err != nil {
					t.Errorf("a good call beside the flood: %v", err)
				}
				slowest = max(slowest, time.Since(began))
				calls++
				<-time.After(10 * time.Millisecond)
			}
			grown := p.memory(t, "VmHWM") - before
			close(done)
			leave()
			has := <-flooded
			fmt.Fprintf(rows, "%s\t%s\t%d -> %d\t%.1f\t%d\t%d\n", flood.name, has, before>>20,
				(before+grown)>>20, (p.cpu(t) - cpu).Seconds(), calls, slowest.Milliseconds())
			if grown > memoryMost {
				t.Errorf("the plugin held %d MiB", grown>>20)
			}
			if has.opened == 0 {
				t.Error("the flood opened no connection")
			}
			if has.acts < flood.least {
				t.Errorf("%d acts do not reach the limit of %d", has.acts, flood.least)
			}
			if !p.Alive() {
				t.Error("the plugin has ended")
			}
		})
	}
	must(t, rows.Flush())
	t.Logf("\n%s", table.String())
}

// TestDecryptsThatWaitForTheKeeper sends as many whole Decrypts of another plugin's objects as may be begun, each with as
// many annotations as fit, to a keeper that hangs. It expects that they cost little memory.
func TestDecryptsThatWaitForTheKeeper(t *testing.T) {
	n, _ := newTenant(t)
	done, asked := make(chan struct{}), make(chan struct{}, 1)
	var hangs atomic.Bool
	front := suite.Front{Answer: func(_ http.ResponseWriter, r *http.Request) bool {
		if !hangs.Load() || !strings.Contains(r.URL.Path, "/decrypt/") {
			return false
		}
		select {
		case asked <- struct{}{}:
		default:
		}
		<-done
		return true
	}}.Serve(t, n.Bao)
	defer close(done)
	p := start(t, append(n.FlagsVia(front.Address), "--tls-ca-file="+front.CAFile)...)
	hangs.Store(true)
	before := p.memory(t, "VmRSS")
	p.forgetPeak(t)
	const connections = unfinishedMost / callsMost
	begun := make(chan int, connections)
	for c := range connections {
		f, err := p.dial()
		must(t, err)
		t.Cleanup(func() { _ = f.Conn.Close() })
		go f.read()
		go func() {
			calls := 0
			for calls < callsMost {
				stream, err := f.begin("Decrypt")
				if err != nil || f.send(stream, manyAnnotations(t, c*callsMost+calls), true) != nil {
					break
				}
				calls++
			}
			begun <- calls
		}()
	}
	all := 0
	for range connections {
		all += <-begun
	}
	select {
	case <-asked:
	case <-time.After(20 * time.Second):
		t.Fatal("the keeper is not asked")
	}
	// A connection's window is 64 KiB, so the provider has read all but the last two messages of each.
	grown := p.memory(t, "VmHWM") - before
	t.Logf("%d Decrypts wait: %d -> %d MiB", all, before>>20, (before+grown)>>20)
	if all < unfinishedMost-callsMost {
		t.Errorf("only %d Decrypts were begun", all)
	}
	if grown > memoryMost {
		t.Errorf("the plugin held %d MiB", grown>>20)
	}
}

// manyAnnotations is a Decrypt with a ciphertext of its own and as many annotations as a message may have.
func manyAnnotations(t *testing.T, number int) []byte {
	ciphertext := fmt.Sprintf("vault:v1:%040d", number)
	request := &kmsapi.DecryptRequest{
		Ciphertext: []byte(ciphertext), Uid: "u", KeyId: "theirs", Annotations: map[string][]byte{},
	}
	for n := range 4_500 {
		request.Annotations[string([]byte{byte(33 + n%90), byte(33 + n/90)})] = nil
	}
	body, err := proto.Marshal(request)
	must(t, err)
	framed := message(len(body), len(body))
	copy(framed[5:], body)
	return framed
}

func seed() []byte {
	seed := make([]byte, 32)
	_, _ = rand.Read(seed)
	return seed
}

// repeat runs `act` in this number of loops until `done` is closed or `act` returns false.
func repeat(done <-chan struct{}, loops int, act func() bool) {
	var group sync.WaitGroup
	for range loops {
		group.Go(func() {
			for open(done) && act() {
			}
		})
	}
	group.Wait()
}

func open(done <-chan struct{}) bool {
	select {
	case <-done:
		return false
	default:
		return true
	}
}

// count runs `act` until it fails or `done` is closed. It returns the number of successes.
func count(done <-chan struct{}, act func() error) int {
	times := 0
	for open(done) && act() == nil {
		times++
	}
	return times
}

// each opens this number of connections, and a new one for each that ends. It runs `act` on each.
func each(p *plugin, done <-chan struct{}, conns int, act func(*frames) int, settings ...http2.Setting) outcome {
	return attack(p, done, conns, (*frames).read, act, settings...)
}

// deaf is each for connections that the test does not read.
func deaf(p *plugin, done <-chan struct{}, conns int, act func(*frames) int) outcome {
	return attack(p, done, conns, func(f *frames) { f.unread(done) }, act)
}

func attack(
	p *plugin, done <-chan struct{}, conns int, beside func(*frames), act func(*frames) int, settings ...http2.Setting,
) outcome {
	var mu sync.Mutex
	opened, acts := 0, 0
	pace := time.NewTicker(time.Second / dialMost)
	defer pace.Stop()
	repeat(done, conns, func() bool {
		select {
		case <-pace.C:
		case <-done:
			return false
		}
		f, err := p.dial(settings...)
		if err != nil {
			return true
		}
		ended := make(chan struct{})
		go func() { beside(f); close(ended) }()
		go func() {
			<-done
			_ = f.SetDeadline(time.Now())
		}()
		times := act(f)
		mu.Lock()
		opened++
		acts += times
		mu.Unlock()
		<-ended
		_ = f.Conn.Close()
		return true
	})
	return outcome{opened, acts}
}
