package apiserver_test

import (
	"bytes"
	"maps"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"k8s.io/kms/pkg/service"
)

// requireRefused requires that a request made from a stored object is refused.
func requireRefused(t *testing.T, client service.Service, what string, request *service.DecryptRequest, code codes.Code) {
	t.Helper()
	opened, err := client.Decrypt(t.Context(), "changed", request)
	if status.Code(err) != code {
		t.Errorf("%s: %d bytes, %v; expected %v", what, len(opened), err, code)
	}
}

func TestChecklist33_TheVersionMarkerCannotBeSwapped(t *testing.T) {
	onEachKey(t, func(t *testing.T, key rotatable) {
		all := storeEach(t, key, 2)
		client := start(t, key.flags).client(t)
		swap := func(at int, from, to string) {
			t.Helper()
			request := asStored(all[at].sealed)
			request.Ciphertext = bytes.Replace(request.Ciphertext, []byte(from), []byte(to), 1)
			if bytes.Equal(request.Ciphertext, all[at].sealed.Ciphertext) {
				t.Fatal("the test has changed nothing")
			}
			requireRefused(t, client, "the marker "+to, request, codes.InvalidArgument)
			// With the key id of that version too.
			request.KeyID = all[1-at].sealed.KeyID
			requireRefused(t, client, "the marker and key id "+to, request, codes.InvalidArgument)
		}
		swap(0, ":v1:", ":v2:")
		swap(1, ":v2:", ":v1:")
		requireAllOpen(t, client, all...)
	})
}

func TestChecklist34_TheKeyIDCannotBeSwapped(t *testing.T) {
	onEachKey(t, func(t *testing.T, key rotatable) {
		all := storeEach(t, key, 2)
		// The same version under the key id of the next generation. Only the binding differs.
		next := start(t, delayed(with(key.flags, "--key-generation=1"), 0))
		all = append(all, store(t, next.client(t)))
		client := start(t, key.flags).client(t)
		for i, one := range all {
			for j, other := range all {
				if i != j {
					request := asStored(one.sealed)
					request.KeyID = other.sealed.KeyID
					requireRefused(t, client, "another key id", request, codes.InvalidArgument)
				}
			}
		}
		requireAllOpen(t, client, all...)
	})
}

func TestChecklist35_TheAnnotationsCannotBeChanged(t *testing.T) {
	onEachPlugin(t, func(t *testing.T, p *plugin) {
		client := p.client(t)
		one := store(t, client)
		const ours = "format.vault-kube-kms"
		if !maps.EqualFunc(one.sealed.Annotations, map[string][]byte{ours: []byte("1")}, bytes.Equal) {
			t.Fatalf("annotations: %q", one.sealed.Annotations)
		}
		for what, annotations := range map[string]map[string]string{
			"another value":        {ours: "2"},
			"an empty value":       {ours: ""},
			"a longer value":       {ours: "1\x00"},
			"a padded value":       {ours: " 1"},
			"one added":            {ours: "1", "a.b": ""},
			"a known one added":    {ours: "1", "local-kek.kms.kubernetes.io": "x"},
			"capitals":             {"Format.Vault-Kube-Kms": "1"},
			"all capitals":         {"FORMAT.VAULT-KUBE-KMS": "1"},
			"capitals beside":      {ours: "1", "Format.vault-kube-kms": "1"},
			"renamed":              {"format.vault-kube-kms2": "1"},
			"renamed by a dot":     {ours + ".": "1"},
			"renamed by a blank":   {ours + " ": "1"},
			"somebody else's name": {"local-kek.kms.kubernetes.io": "1"},
			"an empty name":        {"": "1"},
		} {
			request := asStored(one.sealed)
			request.Annotations = map[string][]byte{}
			for name, value := range annotations {
				request.Annotations[name] = []byte(value)
			}
			requireRefused(t, client, what, request, codes.InvalidArgument)
		}
		requireAllOpen(t, client, one)
	})
}

// An object without annotations may be another plugin's. Its binding shows that it is not.
func TestChecklist36_TheAnnotationsCannotBeTakenAway(t *testing.T) {
	onEachKeeper(t, func(t *testing.T, flags []string) {
		for bridge, code := range map[string]codes.Code{"true": codes.InvalidArgument, "false": codes.NotFound} {
			client := start(t, with(flags, "--legacy-decrypt="+bridge)).client(t)
			one := store(t, client)
			for _, annotations := range []map[string][]byte{nil, {}} {
				request := asStored(one.sealed)
				request.Annotations = annotations
				requireRefused(t, client, "no annotations, legacy "+bridge, request, code)
				request.KeyID = "1"
				requireRefused(t, client, "a foreign key id, legacy "+bridge, request, code)
			}
			requireAllOpen(t, client, one)
		}
	})
}
