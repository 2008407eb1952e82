package e2e_test

import (
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	kmstypes "k8s.io/apiserver/pkg/storage/value/encrypt/envelope/kmsv2/v2"

	"vault-kube-kms.test/parts"
)

// TestAMillionObjects measures an inventory beside the bare read of the same range: objects a second, and the peak
// of its memory. It has fewer objects unless LONG is set.
func TestAMillionObjects(t *testing.T) {
	count := 20_000
	if os.Getenv("LONG") != "" {
		count = 1_000_000
	}
	e := bareEtcd(t, 0)
	fill(t, e, count)

	// Twice, because the first read also fills the caches of the operating system.
	var bare time.Duration
	for range 2 {
		bare = readBarely(t, e, count)
	}
	command := parts.Command(needed(t, "KMSCTL"), "inventory", "--etcd-servers="+e.URL)
	began := time.Now()
	out, err := command.Output()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	took := time.Since(began)
	if expected := fmt.Sprintf("%d encrypted by vault-kube-kms", count); !strings.Contains(string(out), expected) {
		t.Errorf("it prints %s", out)
	}
	peak := command.ProcessState.SysUsage().(*syscall.Rusage).Maxrss / 1024
	t.Logf("bare read: %.2fs, %.0f objects/s", bare.Seconds(), float64(count)/bare.Seconds())
	t.Logf("inventory: %.2fs, %.0f objects/s, peak of memory %d MiB", took.Seconds(), float64(count)/took.Seconds(), peak)
	// Two pages, and not the objects.
	if peak > 200 {
		t.Errorf("its peak of memory is %d MiB", peak)
	}
}

// fill stores Secrets of three key versions. 500 of them have one seed, as between two starts of an API server.
func fill(t *testing.T, e *parts.Etcd, count int) {
	t.Helper()
	const workers, batch, ofOneSeed = 8, 1280, 500
	encrypted := []byte(strings.Repeat("0123456789abcdef", 32))
	object := func(number int) parts.Entry {
		version := 1 + number*3/count
		seed := sha256.Sum256(fmt.Append(nil, number/ofOneSeed))
		value, err := proto.Marshal(&kmstypes.EncryptedObject{
			EncryptedData: encrypted, KeyID: fmt.Sprintf("v%d.%s", version, strings.Repeat("a", 22)),
			EncryptedDEKSource:     fmt.Appendf(nil, "vault:v%d:%s", version, base64.StdEncoding.EncodeToString(seed[:])),
			EncryptedDEKSourceType: kmstypes.EncryptedDEKSourceType_HKDF_SHA256_XNONCE_AES_GCM_SEED,
			Annotations:            map[string][]byte{"format.vault-kube-kms": []byte("1")},
		})
		if err != nil {
			panic(err)
		}
		key := fmt.Sprintf("/registry/secrets/namespace-%03d/secret-%07d", number%1000, number)
		return parts.Entry{Key: key, Value: append([]byte("k8s:enc:kms:v2:vault:"), value...)}
	}
	var group sync.WaitGroup
	for worker := range workers {
		group.Go(func() {
			for from := worker * batch; from < count; from += workers * batch {
				var entries []parts.Entry
				for number := from; number < min(from+batch, count); number++ {
					entries = append(entries, object(number))
				}
				if err := e.PutAll(entries...); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	group.Wait()
	if t.Failed() {
		t.FailNow()
	}
}

// readBarely reads all objects page by page, and does nothing with them.
func readBarely(t *testing.T, e *parts.Etcd, expected int) time.Duration {
	t.Helper()
	const page = 10_000
	conn, err := grpc.NewClient(strings.TrimPrefix(e.URL, "http://"),
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.ForceCodec(raw{}), grpc.MaxCallRecvMsgSize(1<<30)))
	must(t, err)
	defer conn.Close()
	began, count := time.Now(), 0
	for next := []byte("/registry/"); ; {
		var question, answer []byte
		question = protowire.AppendBytes(protowire.AppendTag(question, 1, protowire.BytesType), next)
		question = protowire.AppendBytes(protowire.AppendTag(question, 2, protowire.BytesType), []byte("/registry0"))
		question = protowire.AppendVarint(protowire.AppendTag(question, 3, protowire.VarintType), page)
		must(t, conn.Invoke(t.Context(), "/etcdserverpb.KV/Range", &question, &answer))
		of := 0
		for len(answer) > 0 {
			number, kind, head := protowire.ConsumeTag(answer)
			length := protowire.ConsumeFieldValue(number, kind, answer[head:])
			if head < 0 || length < 0 {
				t.Fatal("the answer of etcd is not valid")
			}
			if number == 2 {
				// A key and its value: the key is the first field.
				kv, _ := protowire.ConsumeBytes(answer[head:])
				key, _ := protowire.ConsumeBytes(kv[1:])
				next, of = append(key[:len(key):len(key)], 0), of+1
			}
			answer = answer[head+length:]
		}
		count += of
		if of < page {
			break
		}
	}
	if count != expected {
		t.Fatalf("the bare read has %d objects and not %d", count, expected)
	}
	return time.Since(began)
}
