package apiserver_test

import (
	"context"
	"encoding/hex"
	"net"
	"strings"
	"sync"
	"testing"

	collector "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	trace "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	kmsapi "k8s.io/kms/apis/v2"

	"vault-kube-kms.test/parts"
)

// spans is a collector that keeps the spans that it gets.
type spans struct {
	collector.UnimplementedTraceServiceServer
	mu  sync.Mutex
	all []*trace.Span
}

func (s *spans) Export(_ context.Context, request *collector.ExportTraceServiceRequest) (*collector.ExportTraceServiceResponse, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, resource := range request.ResourceSpans {
		for _, scope := range resource.ScopeSpans {
			s.all = append(s.all, scope.Spans...)
		}
	}
	return &collector.ExportTraceServiceResponse{}, nil
}

// of returns the spans of one trace.
func (s *spans) of(traceID string) (all []*trace.Span) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, span := range s.all {
		if hex.EncodeToString(span.TraceId) == traceID {
			all = append(all, span)
		}
	}
	return all
}

// collect starts a collector and returns its address.
func collect(t *testing.T) (*spans, string) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	kept, server := &spans{}, grpc.NewServer()
	collector.RegisterTraceServiceServer(server, kept)
	go func() { _ = server.Serve(listener) }()
	t.Cleanup(server.Stop)
	return kept, listener.Addr().String()
}

func attribute(span *trace.Span, name string) string {
	for _, pair := range span.Attributes {
		if pair.Key == name {
			return pair.Value.GetStringValue()
		}
	}
	return ""
}

func TestTracesJoinTheCallers(t *testing.T) {
	t.Parallel()
	kept, address := collect(t)
	tenant := sharedBao(t).tenant(t)
	p := start(t, append(tenant.Flags(), "--otlp-endpoint=http://"+address))
	plaintext := randomBytes(32)
	sealed := asStored(encrypt(t, p.client(t), plaintext))

	const traceID, caller = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
	ctx := metadata.AppendToOutgoingContext(t.Context(), "traceparent", "00-"+traceID+"-"+caller+"-01")
	client := kmsapi.NewKeyManagementServiceClient(p.conn(t, grpc.WithAuthority("localhost")))
	request := &kmsapi.DecryptRequest{
		Ciphertext: sealed.Ciphertext, KeyId: sealed.KeyID, Annotations: sealed.Annotations, Uid: "traced",
	}
	_, err := client.Decrypt(ctx, request)
	must(t, err)
	request.Ciphertext = []byte("vault:v1:" + strings.Repeat("A", 64))
	if _, err := client.Decrypt(ctx, request); err == nil {
		t.Fatal("a changed ciphertext is accepted")
	}

	if !parts.Eventually(startBound, func() bool { return len(kept.of(traceID)) == 4 }) {
		t.Fatalf("the caller's trace holds %v", kept.of(traceID))
	}
	calls, failed := map[string]*trace.Span{}, 0
	for _, span := range kept.of(traceID) {
		if span.Name == "Decrypt" {
			calls[string(span.SpanId)] = span
			if hex.EncodeToString(span.ParentSpanId) != caller || span.Kind != trace.Span_SPAN_KIND_SERVER {
				t.Errorf("it is not the caller's child: %v", span)
			}
		}
	}
	for _, span := range kept.of(traceID) {
		if span.Name == "Decrypt" {
			continue
		}
		call := calls[string(span.ParentSpanId)]
		if call == nil || !strings.HasPrefix(span.Name, "POST ") || attribute(span, "server.address") == "" {
			t.Errorf("no request of one of the calls: %v", span)
			continue
		}
		if code := attribute(call, "error.code"); code != "" {
			failed++
			if code != "ciphertext-rejected" || call.Status.GetCode() != trace.Status_STATUS_CODE_ERROR {
				t.Errorf("the failed call: %v", call)
			}
		} else if attribute(span, "vault.request_id") == "" {
			t.Errorf("without the keeper's own name for the request: %v", span)
		}
	}
	if failed != 1 {
		t.Errorf("%d of two calls failed", failed)
	}
}

// TestTracesWithoutACollector expects that calls and the shutdown work without the collector.
func TestTracesWithoutACollector(t *testing.T) {
	t.Parallel()
	tenant := sharedBao(t).tenant(t)
	p := start(t, append(tenant.Flags(), "--otlp-endpoint=http://"+parts.FreeAddress()))
	for range 20 {
		roundTrip(t, p.client(t), randomBytes(32))
	}
	if !p.Stop() {
		t.Error("the plugin did not end on SIGTERM")
	}
}
