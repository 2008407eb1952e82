package e2e_test

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"net/http"
	"strconv"
	"sync"
	"testing"

	"vault-kube-kms.test/cluster"
)

// The sizes that users of the original see, and those that the design allows.
const (
	operations = "apiserver_envelope_encryption_kms_operations_latency_seconds_count"
	keyIDHash  = "apiserver_envelope_encryption_key_id_hash_total"
)

func TestChecklist68_WhatEtcdHoldsOfASecret(t *testing.T) {
	t.Parallel()
	c := start(t)
	c.api.mustCreate(t, "one")
	c.api.requireReads(t, "one")
	s := c.stored(t)[0]
	object := s.object(t, cluster.Provider)
	if object == nil {
		t.Fatalf("the Secret is stored as %.60q", s.raw)
	}
	if object.EncryptedDEKSourceType != 1 {
		t.Errorf("the seed is of type %d", object.EncryptedDEKSourceType)
	}
	if len(object.Annotations) != 1 || string(object.Annotations["format.vault-kube-kms"]) != "1" {
		t.Errorf("the annotations are %q", object.Annotations)
	}
	if s.isClear() || bytes.Contains(s.raw, []byte(valueKey)) {
		t.Error("the Secret can be read without a key")
	}
	// The API server's metrics have the hash of the plugin's key id, and the plugin logs the key id.
	hash := fmt.Sprintf("sha256:%x", sha256.Sum256([]byte(object.KeyID)))
	if c.api.metric(t, keyIDHash, hash, "to_storage") != 1 {
		t.Errorf("the API server does not count it under %s", hash)
	}
	if printed := c.plugin.Printed(); !bytes.Contains([]byte(printed), []byte(hash)) {
		t.Errorf("the plugin does not know %s: %s", hash, printed)
	}
	t.Logf("a Secret takes %d bytes, of which %d are the key id, the wrapped seed and the annotation", len(s.raw), len(object.KeyID)+len(object.EncryptedDEKSource)+len("format.vault-kube-kms")+1)
}

// TestChecklist69And70_CallsForFiveThousandSecrets expects one Encrypt for 5,000 Secrets. A restart of the API
// server costs one Decrypt for each seed, multiplied by the number of objects that it decodes at once.
func TestChecklist69And70_CallsForFiveThousandSecrets(t *testing.T) {
	t.Parallel()
	const count, starts = 5_000, 4
	c := start(t)
	for begun := range starts {
		if begun > 0 {
			c.restartAPIServer(t)
		}
		encrypts, decrypts := c.calls(t, "Encrypt"), c.calls(t, "Decrypt")
		createMany(t, c.api, begun*count/starts, count/starts)
		if more := c.calls(t, "Encrypt") - encrypts; more != 0 {
			t.Errorf("%d Encrypts while %d Secrets were written", more, count/starts)
		}
		if more := c.calls(t, "Decrypt") - decrypts; more != 0 {
			t.Errorf("%d Decrypts while %d Secrets were written", more, count/starts)
		}
		if written := c.api.metric(t, keyIDHash, "to_storage"); written != count/starts {
			t.Errorf("the API server counts %v Secrets of %d", written, count/starts)
		}
		if own := c.calls(t, "Encrypt"); own != begun+1 {
			t.Errorf("%d Encrypts for %d starts of the API server", own, begun+1)
		}
	}
	seeds, decrypts, shared := c.seeds(t), c.calls(t, "Decrypt"), c.shared(t)
	if seeds != starts {
		t.Errorf("%d seeds of %d starts", seeds, starts)
	}
	c.restartAPIServer(t)
	c.api.requireList(t, count)
	more, most := c.calls(t, "Decrypt")-decrypts, seeds*c.api.decodesAtOnce(t)
	if more < seeds || more > most {
		t.Errorf("%d Decrypts for %d seeds, and not up to %d", more, seeds, most)
	}
	if asked := c.api.metric(t, operations, `method_name="/v2.KeyManagementService/Decrypt"`); int(asked) != more {
		t.Errorf("the API server counts %v Decrypts of %d", asked, more)
	}
	t.Logf("%d Secrets in %d starts of the API server: %d Encrypts, %d seeds; a restart: %d Decrypts, of which %d share another's call to the keeper",
		count, starts, c.calls(t, "Encrypt")-1, seeds, more, c.shared(t)-shared)
}

// decodesAtOnce returns the number of objects that an API server decodes at once when it reads them from etcd.
// Since 1.37 it is more than one (ConcurrentWatchObjectDecode). Each of them asks for the seed while the API
// server does not have it.
func (a api) decodesAtOnce(t *testing.T) int {
	t.Helper()
	if a.minor(t) < 37 {
		return 1
	}
	return 10
}

// minor returns the second number of the release of Kubernetes.
func (a api) minor(t *testing.T) int {
	t.Helper()
	var version struct{ Minor string }
	must(t, a.ask("GET", "/version", http.StatusOK, nil, &version))
	minor, err := strconv.Atoi(version.Minor)
	must(t, err)
	return minor
}

// shared returns the number of unwraps that shared the keeper's answer to another unwrap.
func (c *controlPlane) shared(t *testing.T) int {
	t.Helper()
	metrics, err := c.plugin.Metrics()
	must(t, err)
	shared, _ := metrics.Sum("vault_kube_kms_coalesced_total")
	return int(shared)
}

// createMany writes this number of Secrets, several at a time.
func createMany(t *testing.T, a api, from, count int) {
	t.Helper()
	const workers = 16
	var group sync.WaitGroup
	for worker := range workers {
		group.Go(func() {
			for number := from + worker; number < from+count; number += workers {
				if err := a.create(fmt.Sprintf("s-%05d", number)); err != nil {
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

// TestChecklist67_ASecondProviderIsPrimedAndRead expects that the API server calls Status and Encrypt of the
// second provider, which only reads, before it reads its objects.
func TestChecklist67_ASecondProviderIsPrimedAndRead(t *testing.T) {
	t.Parallel()
	c := start(t)
	c.api.mustCreate(t, "of-the-first")
	c.reconfigure(t, cluster.AESCBC, cluster.KMS(c.plugin.Endpoint))
	if c.calls(t, "Encrypt") != 2 {
		t.Errorf("%d Encrypts for two starts of the API server", c.calls(t, "Encrypt"))
	}
	c.api.requireReads(t, "of-the-first")
	c.api.mustCreate(t, "of-the-second")
	c.api.requireList(t, 2)
}
