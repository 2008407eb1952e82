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

// stored is what etcd holds of a Secret.
type stored struct {
	name     string
	raw      []byte
	revision int64
}

// stored is what etcd holds of all Secrets.
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

// object is the encrypted object of a provider; nil where it is stored otherwise.
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

// isClear says whether it can be read without any key.
func (s stored) isClear() bool { return bytes.Contains(s.raw, []byte(value(s.name))) }

// keyIDs are the key ids under which Secrets are stored, each with how many there are; the empty
// one stands for what is not encrypted by the plugin.
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

// onlyKeyID is the key id under which all Secrets are stored.
func (c *controlPlane) onlyKeyID(t *testing.T) string {
	t.Helper()
	ids := c.keyIDs(t)
	if len(ids) != 1 || ids[""] != 0 {
		t.Fatalf("Secrets are stored under %v", ids)
	}
	return slices.Collect(maps.Keys(ids))[0]
}

// seeds is how many different seeds there are.
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
