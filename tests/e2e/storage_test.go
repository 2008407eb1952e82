package e2e_test

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"sync"
	"testing"

	"vault-kube-kms.test/cluster"
)

// What the original's users look at, and what the design allows.
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
		t.Fatalf("it is stored as %.60q", s.raw)
	}
	if object.EncryptedDEKSourceType != 1 {
		t.Errorf("the seed is of type %d", object.EncryptedDEKSourceType)
	}
	if len(object.Annotations) != 1 || string(object.Annotations["format.vault-kube-kms"]) != "1" {
		t.Errorf("the annotations are %q", object.Annotations)
	}
	if s.isClear() || bytes.Contains(s.raw, []byte(valueKey)) {
		t.Error("it can be read without a key")
	}
	// The key id is the plugin's: the API server counts under its hash, and the plugin logs it.
	hash := fmt.Sprintf("sha256:%x", sha256.Sum256([]byte(object.KeyID)))
	if c.api.metric(t, keyIDHash, hash, "to_storage") != 1 {
		t.Errorf("the API server does not count it under %s", hash)
	}
	if printed := c.plugin.Printed(); !bytes.Contains([]byte(printed), []byte(hash)) {
		t.Errorf("the plugin does not know %s: %s", hash, printed)
	}
	t.Logf("a Secret takes %d bytes, of which %d are the key id, the wrapped seed and the annotation", len(s.raw), len(object.KeyID)+len(object.EncryptedDEKSource)+len("format.vault-kube-kms")+1)
}

// 5,000 Secrets cost one Encrypt, and a restart of the API server as many Decrypts as there are
// seeds.
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
	seeds, decrypts := c.seeds(t), c.calls(t, "Decrypt")
	if seeds != starts {
		t.Errorf("%d seeds of %d starts", seeds, starts)
	}
	c.restartAPIServer(t)
	c.api.requireList(t, count)
	if more := c.calls(t, "Decrypt") - decrypts; more != seeds {
		t.Errorf("%d Decrypts for %d seeds", more, seeds)
	}
	if asked := c.api.metric(t, operations, `method_name="/v2.KeyManagementService/Decrypt"`); int(asked) != seeds {
		t.Errorf("the API server counts %v Decrypts for %d seeds", asked, seeds)
	}
	t.Logf("%d Secrets in %d starts of the API server: %d Encrypts, %d seeds; a restart: %d Decrypts",
		count, starts, c.calls(t, "Encrypt")-1, seeds, c.calls(t, "Decrypt")-decrypts)
}

// createMany writes so many Secrets, some at a time.
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

// A provider that comes second only reads, and must be asked for Status and Encrypt all the same
// before anything of it is read.
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
