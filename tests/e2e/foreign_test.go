package e2e_test

import (
	"context"
	"encoding/base64"
	"net"
	"path/filepath"
	"strings"
	"testing"

	"google.golang.org/grpc"
	kmsapi "k8s.io/kms/apis/v2"

	"vault-kube-kms.test/cluster"
	"vault-kube-kms.test/parts"
)

const legacyReads = "vault_kube_kms_legacy_reads_total"

// TestMovingFromAnotherVaultPlugin replaces a plugin that wraps seeds by plain Transit calls under its own key
// id. It expects that our plugin reads its objects without any other change, and that no legacy read follows a
// storage migration.
func TestMovingFromAnotherVaultPlugin(t *testing.T) {
	t.Parallel()
	other := serveForeign(t)
	c := start(t, encrypting(func(string) string { return cluster.Secrets(other.endpoint) }), func(s *cluster.Settings) {
		s.Route = other.meets
	})
	const count, starts = 60, 3
	for begun := range starts {
		if begun > 0 {
			c.restartAPIServer(t)
		}
		createMany(t, c.api, begun*count/starts, count/starts)
	}
	if c.onlyKeyID(t) != foreignKeyID || c.seeds(t) != starts {
		t.Fatalf("the other plugin wrote %v", c.keyIDs(t))
	}

	other.server.Stop()
	ours, err := parts.StartPlugin(parts.Way{Logs: c.Dir}, "ours", c.Programs.Plugin, other.endpoint, c.Tenant.Flags()...)
	must(t, err)
	t.Cleanup(func() { ours.Stop() })
	legacy := func() int {
		metrics, err := ours.Metrics()
		must(t, err)
		sum, _ := metrics.Sum(legacyReads)
		return int(sum)
	}
	// The API server learns the new key id from Status, without a restart.
	id := c.writesUnder(t, c.api, foreignKeyID)
	c.api.requireList(t, len(c.stored(t)))
	c.restartAPIServer(t)
	c.api.requireList(t, len(c.stored(t)))
	if reads, most := legacy(), starts*c.api.decodesAtOnce(t); reads < starts || reads > most {
		t.Errorf("%d reads of %d foreign seeds, and not up to %d", reads, starts, most)
	}
	if rewritten := c.api.migrate(t); rewritten < count {
		t.Errorf("%d of %d were stored again", rewritten, count)
	}
	if c.onlyKeyID(t) != id {
		t.Error("objects are left under another key id")
	}
	before := legacy()
	c.restartAPIServer(t)
	c.api.requireList(t, len(c.stored(t)))
	if legacy() != before {
		t.Errorf("%d more reads of foreign seeds after the migration", legacy()-before)
	}
}

const foreignKeyID = "transit-key-1"

// foreign is a plugin like those of other authors: it calls Transit without associated data, and has its own form
// of key ids.
type foreign struct {
	kmsapi.UnimplementedKeyManagementServiceServer
	endpoint string
	server   *grpc.Server
	bao      *parts.OpenBao
}

func serveForeign(t *testing.T) *foreign {
	t.Helper()
	f := &foreign{endpoint: "unix://" + filepath.Join(shortDir(t), "kms.sock"), server: grpc.NewServer()}
	listener, err := net.Listen("unix", strings.TrimPrefix(f.endpoint, "unix://"))
	must(t, err)
	kmsapi.RegisterKeyManagementServiceServer(f.server, f)
	go func() { _ = f.server.Serve(listener) }()
	t.Cleanup(f.server.Stop)
	return f
}

// meets gives the other plugin the keeper, which ours then reaches directly.
func (f *foreign) meets(b *parts.OpenBao) (address, caFile string) {
	f.bao = b
	return b.Address, b.CAFile
}

func (f *foreign) Status(context.Context, *kmsapi.StatusRequest) (*kmsapi.StatusResponse, error) {
	return &kmsapi.StatusResponse{Version: "v2", Healthz: "ok", KeyId: foreignKeyID}, nil
}

func (f *foreign) Encrypt(_ context.Context, request *kmsapi.EncryptRequest) (*kmsapi.EncryptResponse, error) {
	answer, err := f.bao.Ask("POST", "transit/encrypt/"+cluster.Key, map[string]any{
		"plaintext": base64.StdEncoding.EncodeToString(request.Plaintext),
	})
	if err != nil {
		return nil, err
	}
	return &kmsapi.EncryptResponse{Ciphertext: []byte(answer["ciphertext"].(string)), KeyId: foreignKeyID}, nil
}

func (f *foreign) Decrypt(_ context.Context, request *kmsapi.DecryptRequest) (*kmsapi.DecryptResponse, error) {
	answer, err := f.bao.Ask("POST", "transit/decrypt/"+cluster.Key, map[string]any{
		"ciphertext": string(request.Ciphertext),
	})
	if err != nil {
		return nil, err
	}
	plaintext, err := base64.StdEncoding.DecodeString(answer["plaintext"].(string))
	return &kmsapi.DecryptResponse{Plaintext: plaintext}, err
}
