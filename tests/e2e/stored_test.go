package e2e_test

import (
	"bytes"
	"maps"
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"
	"k8s.io/apiserver/pkg/storage/value/encrypt/envelope/kmsv2"
	kmstypes "k8s.io/apiserver/pkg/storage/value/encrypt/envelope/kmsv2/v2"

	"vault-kube-kms.test/cluster"
)

// stored is the value of a Secret in etcd.
type stored struct {
	name     string
	raw      []byte
	revision int64
}

// stored returns the values of all Secrets in etcd.
func (c *controlPlane) stored(t *testing.T) []stored {
	t.Helper()
	const prefix = "/registry/secrets/default/"
	entries, err := c.Etcd.Under(prefix)
	must(t, err)
	all := make([]stored, 0, len(entries))
	for _, entry := range entries {
		all = append(all, stored{strings.TrimPrefix(entry.Key, prefix), entry.Value, entry.ModRevision})
	}
	return all
}

// object returns the encrypted object of a provider, or nil if it is stored in another form.
func (s stored) object(t *testing.T, provider string) *kmstypes.EncryptedObject {
	t.Helper()
	encoded, found := bytes.CutPrefix(s.raw, []byte("k8s:enc:kms:v2:"+provider+":"))
	if !found {
		return nil
	}
	object := &kmstypes.EncryptedObject{}
	must(t, proto.Unmarshal(encoded, object))
	must(t, kmsv2.ValidateEncryptedObject(object))
	return object
}

// isClear reports whether it can be read without a key.
func (s stored) isClear() bool { return bytes.Contains(s.raw, []byte(value(s.name))) }

// keyIDs returns the number of Secrets under each key id. The empty key id counts Secrets that the plugin did not
// encrypt.
func (c *controlPlane) keyIDs(t *testing.T) map[string]int {
	t.Helper()
	ids := map[string]int{}
	for _, s := range c.stored(t) {
		var id string
		if object := s.object(t, cluster.Provider); object != nil {
			id = object.KeyID
		}
		ids[id]++
	}
	return ids
}

// onlyKeyID returns the key id under which all Secrets are stored.
func (c *controlPlane) onlyKeyID(t *testing.T) string {
	t.Helper()
	ids := c.keyIDs(t)
	if len(ids) != 1 || ids[""] != 0 {
		t.Fatalf("Secrets are stored under %v", ids)
	}
	return slices.Collect(maps.Keys(ids))[0]
}

// seeds returns the number of different seeds.
func (c *controlPlane) seeds(t *testing.T) int {
	t.Helper()
	seeds := map[string]bool{}
	for _, s := range c.stored(t) {
		if object := s.object(t, cluster.Provider); object != nil {
			seeds[string(object.EncryptedDEKSource)] = true
		}
	}
	return len(seeds)
}
