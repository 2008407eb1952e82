package apiserver_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	kmsapi "k8s.io/kms/apis/v2"
	"k8s.io/kms/pkg/service"

	"vault-kube-kms.test/parts"
)

// memoryMax limits the resident memory of the plugin.
const memoryMax = 64 << 20

func TestChecklist01_StatusOverAFileSocket(t *testing.T) {
	onEachPlugin(t, func(t *testing.T, p *plugin) {
		client, _ := p.raw(t)
		answer, err := client.Status(t.Context(), &kmsapi.StatusRequest{})
		if err != nil {
			t.Fatal(err)
		}
		if answer.Version == "" || answer.Healthz == "" || answer.KeyId == "" {
			t.Errorf("not all fields are set: %v", answer)
		}
	})
}

func TestChecklist02_AnAbstractSocketAnswersAlike(t *testing.T) {
	onEachKeeper(t, func(t *testing.T, flags []string) {
		file := start(t, flags)
		abstract := launch(t, "unix:///@vkk-"+parts.RandomName(), flags)
		abstract.waitHealthy(t)
		onFile, err := file.client(t).Status(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		client := abstract.client(t)
		if answer, err := client.Status(t.Context()); err != nil || *answer != *onFile {
			t.Errorf("%v, %v; on a file socket %v", answer, err, onFile)
		}
		roundTrip(t, client, randomBytes(32))
	})
}

func TestChecklist04_UnknownMethodsLeaveTheConnectionUsable(t *testing.T) {
	onEachPlugin(t, func(t *testing.T, p *plugin) {
		client, conn := p.raw(t)
		for _, method := range []string{"/v2.KeyManagementService/Rotate", "/v1beta1.KeyManagementService/Status"} {
			err := conn.Invoke(t.Context(), method, &kmsapi.StatusRequest{}, &kmsapi.StatusResponse{})
			if status.Code(err) != codes.Unimplemented {
				t.Errorf("%s: %v", method, err)
			}
			if _, err := client.Status(t.Context(), &kmsapi.StatusRequest{}); err != nil {
				t.Errorf("after %s: %v", method, err)
			}
		}
	})
}

func TestChecklist05_AHundredAtOnceOnOneConnection(t *testing.T) {
	onEachPlugin(t, func(t *testing.T, p *plugin) {
		client := clientOf(t, p.endpoint, 15*time.Second)
		var group sync.WaitGroup
		for range 100 {
			group.Go(func() {
				plaintext := randomBytes(32)
				sealed, err := client.Encrypt(t.Context(), "encrypt", plaintext)
				if err != nil {
					t.Errorf("Encrypt: %v", err)
					return
				}
				opened, err := client.Decrypt(t.Context(), "decrypt", asStored(sealed))
				if err != nil || !bytes.Equal(opened, plaintext) {
					t.Errorf("Decrypt: %v", err)
				}
			})
		}
		group.Wait()
	})
}

func TestChecklist07_UnknownFieldsAreIgnored(t *testing.T) {
	onEachPlugin(t, func(t *testing.T, p *plugin) {
		client, _ := p.raw(t)
		plaintext := randomBytes(32)
		if _, err := client.Status(t.Context(), withUnknownFields(&kmsapi.StatusRequest{})); err != nil {
			t.Errorf("Status: %v", err)
		}
		sealed, err := client.Encrypt(t.Context(),
			withUnknownFields(&kmsapi.EncryptRequest{Plaintext: plaintext, Uid: "encrypt"}))
		if err != nil {
			t.Fatalf("Encrypt: %v", err)
		}
		opened, err := client.Decrypt(t.Context(), withUnknownFields(&kmsapi.DecryptRequest{
			Ciphertext: sealed.Ciphertext, Uid: "decrypt", KeyId: sealed.KeyId, Annotations: sealed.Annotations,
		}))
		if err != nil || !bytes.Equal(opened.Plaintext, plaintext) {
			t.Errorf("Decrypt: %v", err)
		}
	})
}

func withUnknownFields[M proto.Message](message M) M {
	unknown := protowire.AppendTag(nil, 15, protowire.VarintType)
	unknown = protowire.AppendVarint(unknown, 4_711)
	unknown = protowire.AppendTag(unknown, 4_000, protowire.BytesType)
	unknown = protowire.AppendBytes(unknown, []byte("from a later release"))
	message.ProtoReflect().SetUnknown(unknown)
	return message
}

func TestChecklist10_OtherProtocolsEndTheirOwnConnection(t *testing.T) {
	t.Parallel()
	p := start(t, localFlags(t))
	client := p.client(t)
	for name, bytes := range map[string][]byte{
		"HTTP/1.1": []byte("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"),
		"TLS":      []byte("\x16\x03\x01\x00\xc8\x01\x00\x00\xc4\x03\x03" + strings.Repeat("x", 194)),
		"noise":    randomBytes(4_096),
		"a preface and noise": append([]byte("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
			randomBytes(4_096)...),
	} {
		conn, err := net.Dial("unix", p.address())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		_ = conn.SetDeadline(time.Now().Add(startBound))
		// The server may close the connection before all is written.
		_, _ = conn.Write(bytes)
		if _, err := io.Copy(io.Discard, conn); errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("%s: the connection stays open", name)
		}
		if _, err := client.Status(t.Context()); err != nil {
			t.Errorf("after %s: %v", name, err)
		}
	}
	p.requireHealthy(t)
}

func TestChecklist11_LargeRequestsAreRefusedInBoundedMemory(t *testing.T) {
	onEachPlugin(t, func(t *testing.T, p *plugin) {
		client := p.client(t)
		var group sync.WaitGroup
		for range 8 {
			group.Go(func() {
				_, err := client.Encrypt(t.Context(), "large", make([]byte, 5<<20))
				if status.Code(err) != codes.InvalidArgument {
					t.Errorf("Encrypt: %v", err)
				}
				large := &service.DecryptRequest{KeyID: "k", Ciphertext: make([]byte, 5<<20)}
				if _, err := client.Decrypt(t.Context(), "large", large); status.Code(err) != codes.InvalidArgument {
					t.Errorf("Decrypt: %v", err)
				}
			})
		}
		group.Wait()
		if size := p.resident(t); size > memoryMax {
			t.Errorf("the plugin holds %d KiB of memory", size>>10)
		}
		p.requireHealthy(t)
	})
}

// resident returns the resident memory of the plugin, in bytes.
func (p *plugin) resident(t *testing.T) int {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.Pid()))
	if err != nil {
		t.Fatal(err)
	}
	_, after, _ := strings.Cut(string(text), "VmRSS:")
	kibibytes, err := strconv.Atoi(strings.Fields(after)[0])
	if err != nil {
		t.Fatal(err)
	}
	return kibibytes << 10
}
