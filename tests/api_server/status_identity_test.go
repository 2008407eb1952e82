package apiserver_test

import (
	"crypto/sha256"
	"fmt"
	"strings"
	"testing"
	"time"

	"k8s.io/kms/pkg/service"

	"vault-kube-kms.test/parts"
)

func TestChecklist15_TwoNodesReportTheSameKeyID(t *testing.T) {
	onEachKey(t, func(t *testing.T, key rotatable) {
		key.rotate(t)
		one, other := start(t, key.flags).client(t), start(t, key.flags).client(t)
		if a, b := keyID(t, one), keyID(t, other); a != b {
			t.Errorf("one tells %s, the other %s", a, b)
		}
		ofOne, ofOther := store(t, one), store(t, other)
		requireAllOpen(t, one, ofOther)
		requireAllOpen(t, other, ofOne)
	})
}

func TestChecklist18_StatusNeverReachesTheKeeper(t *testing.T) {
	t.Parallel()
	p, metrics := metered(t, sharedBao(t).tenant(t).Flags())
	clients := []service.Service{p.client(t), p.client(t)}
	before, began := keeperCalls(t, metrics), time.Now()
	for range 100 {
		for _, client := range clients {
			keyID(t, client)
		}
	}
	// The requests of the observer.
	if calls := keeperCalls(t, metrics) - before; calls > 4+ownWithin(time.Since(began)) {
		t.Errorf("%d calls of the keeper during 200 of Status", calls)
	}
}

// TestChecklist19_TheHashIsThatOfTheAPIServer compares the hashes by which operators join the API server's
// metrics with the plugin's.
func TestChecklist19_TheHashIsThatOfTheAPIServer(t *testing.T) {
	onEachKeeper(t, func(t *testing.T, flags []string) {
		p, metrics := metered(t, flags)
		hash := fmt.Sprintf("sha256:%x", sha256.Sum256([]byte(keyID(t, p.client(t)))))
		// The metric changes within a second.
		var value float64
		if !parts.Eventually(callTimeout, func() bool {
			value, _ = counted(t, metrics, "vault_kube_kms_key_id_info", `key_id_hash="`+hash+`"`)
			return value == 1
		}) {
			t.Errorf("%s has the value %v", hash, value)
		}
		if all, _ := counted(t, metrics, "vault_kube_kms_key_id_info"); all != 1 {
			t.Errorf("%v key ids write", all)
		}
		if !strings.Contains(p.Stdout.String(), `"`+hash+`"`) {
			t.Errorf("the log does not name %s", hash)
		}
	})
}
