package apiserver_test

import (
	"testing"

	"google.golang.org/grpc/codes"
)

func TestAKeyThatMovedKeepsItsLineage(t *testing.T) {
	t.Parallel()
	b := sharedBao(t)
	tenant := b.tenant(t)
	lineage := "--key-lineage=" + tenant.Key
	here := start(t, with(tenant.Flags(), lineage))
	old := store(t, here.client(t))
	id := keyID(t, here.client(t))
	unnamed := store(t, start(t, tenant.Flags()).client(t))

	b.must(t, "POST", "transit/keys/"+tenant.Key+"/config",
		map[string]any{"exportable": true, "allow_plaintext_backup": true})
	backup := b.must(t, "GET", "transit/backup/"+tenant.Key, nil)["backup"]
	mount := "moved-" + tenant.Key
	b.must(t, "POST", "sys/mounts/"+mount, map[string]any{"type": "transit"})
	b.must(t, "POST", mount+"/restore/"+tenant.Key, map[string]any{"backup": backup})
	b.must(t, "PUT", "sys/policies/acl/"+tenant.Key, map[string]any{
		"policy": `path "` + mount + `/*" { capabilities = ["read", "update"] }`,
	})

	moved := with(tenant.Flags(), "--vault-key-path="+mount+"/keys/"+tenant.Key)
	there := start(t, with(moved, lineage)).client(t)
	if now := keyID(t, there); now != id {
		t.Errorf("%s has become %s", id, now)
	}
	requireAllOpen(t, there, old, store(t, there))

	// Key ids derive from the place of a key unless it has a lineage.
	elsewhere := start(t, moved).client(t)
	if now := keyID(t, elsewhere); now == id || now == unnamed.sealed.KeyID {
		t.Errorf("%s names a key of another place", now)
	}
	for what, one := range map[string]stored{"with a lineage": old, "without": unnamed} {
		requireRefused(t, elsewhere, "written elsewhere "+what, asStored(one.sealed), codes.NotFound)
	}
	accepting := start(t, with(moved, "--accept-key-id="+unnamed.sealed.KeyID+"=1"))
	requireAllOpen(t, accepting.client(t), unnamed)
}

func TestAnAcceptedKeyIDIsReadWithTheNamedVersion(t *testing.T) {
	t.Parallel()
	tenant := sharedBao(t).tenant(t)
	key := rotatable{with(tenant.Flags(), "--key-lineage=a"), tenant.rotate}
	all := storeEach(t, key, 2)
	one, two := all[0].sealed.KeyID, all[1].sealed.KeyID
	b := with(tenant.Flags(), "--key-lineage=b")

	strict := start(t, b).client(t)
	for _, object := range all {
		requireRefused(t, strict, "without the flag", asStored(object.sealed), codes.NotFound)
	}
	const invented = "an-old-key-id"
	lenient := start(t, with(b,
		"--accept-key-id="+one+"=1", "--accept-key-id="+two+"=2", "--accept-key-id="+invented+"=1")).client(t)
	requireAllOpen(t, lenient, all[0], all[1], store(t, lenient))

	// The flag accepts a key id. The binding must still match, and the flag must give the version of the object.
	for name, code := range map[string]codes.Code{invented: codes.InvalidArgument, two: codes.NotFound} {
		request := asStored(all[0].sealed)
		request.KeyID = name
		requireRefused(t, lenient, "under "+name, request, code)
	}
	// Only the named version is tried.
	wrong := start(t, with(b, "--accept-key-id="+one+"=2")).client(t)
	requireRefused(t, wrong, "with another version", asStored(all[0].sealed), codes.NotFound)
	requireRefused(t, wrong, "not named", asStored(all[1].sealed), codes.NotFound)
}
