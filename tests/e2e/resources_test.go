package e2e_test

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"vault-kube-kms.test/cluster"
)

// TestEveryResourceIsEncrypted expects that every resource is encrypted, custom resources too, and that an API
// server without a seed reads all of them at its start.
func TestEveryResourceIsEncrypted(t *testing.T) {
	t.Parallel()
	c := start(t, encrypting(func(endpoint string) string { return cluster.Encrypting("*.*", cluster.KMS(endpoint)) }))
	for _, kind := range kinds {
		// Widgets can be made after the API server has read their definition.
		c.api.waitFor(t, kind.path, http.StatusOK, time.Minute)
		must(t, c.api.ask("POST", kind.path, http.StatusCreated, kind.object, nil))
	}
	decrypts := c.calls(t, "Decrypt")
	c.restartAPIServer(t)
	for _, kind := range kinds {
		c.api.waitFor(t, kind.path+"/"+kind.object["metadata"].(object)["name"].(string), http.StatusOK, time.Minute)
	}
	entries, err := c.Etcd.Under("/registry/")
	must(t, err)
	encrypted := map[string]int{}
	var clear []string
	for _, entry := range entries {
		kind := strings.Join(strings.Split(entry.Key, "/")[2:4], "/")
		if (stored{raw: entry.Value}).object(t, cluster.Provider) == nil {
			clear = append(clear, entry.Key)
			continue
		}
		encrypted[kind]++
		encrypted[strings.Split(kind, "/")[0]]++
	}
	for _, kind := range append(kinds, resource{stored: "leases"}, resource{stored: "clusterroles"}) {
		if encrypted[kind.stored] == 0 {
			t.Errorf("no %s is encrypted", kind.stored)
		}
	}
	// Data that is not a resource is not encrypted: allocations of addresses and ports, and the list of API
	// servers.
	for _, key := range clear {
		if !strings.HasPrefix(key, "/registry/ranges/") && !strings.HasPrefix(key, "/registry/peerserverleases/") {
			t.Errorf("%s is not encrypted", key)
		}
	}
	t.Logf("%d objects of two seeds, and %d Decrypts at a restart: the API server reads many resources at once",
		len(entries), c.calls(t, "Decrypt")-decrypts)
}

type object = map[string]any

// resource is a kind of object: the path to create one, an example, and its place in etcd.
type resource struct {
	path, stored string
	object       object
}

var kinds = []resource{
	{"/api/v1/namespaces/default/secrets", "secrets", object{
		"apiVersion": "v1", "kind": "Secret", "metadata": object{"name": "one"},
	}},
	{"/api/v1/namespaces/default/configmaps", "configmaps", object{
		"apiVersion": "v1", "kind": "ConfigMap", "metadata": object{"name": "one"},
	}},
	{"/apis/apps/v1/namespaces/default/deployments", "deployments", object{
		"apiVersion": "apps/v1", "kind": "Deployment", "metadata": object{"name": "one"},
		"spec": object{
			"selector": object{"matchLabels": object{"app": "one"}},
			"template": object{
				"metadata": object{"labels": object{"app": "one"}},
				"spec":     object{"containers": []object{{"name": "one", "image": "one"}}},
			},
		},
	}},
	{"/apis/apiextensions.k8s.io/v1/customresourcedefinitions", "apiextensions.k8s.io", object{
		"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
		"metadata": object{"name": "widgets.example.org"},
		"spec": object{
			"group": "example.org", "scope": "Namespaced",
			"names": object{"plural": "widgets", "singular": "widget", "kind": "Widget"},
			"versions": []object{{
				"name": "v1", "served": true, "storage": true,
				"schema": object{"openAPIV3Schema": object{"type": "object", "x-kubernetes-preserve-unknown-fields": true}},
			}},
		},
	}},
	{"/apis/example.org/v1/namespaces/default/widgets", "example.org", object{
		"apiVersion": "example.org/v1", "kind": "Widget", "metadata": object{"name": "one"}, "size": 7,
	}},
}
