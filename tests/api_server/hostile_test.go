package apiserver_test

import (
	"bytes"
	"fmt"
	"maps"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"k8s.io/kms/pkg/service"
)

// TestHostileObjectsAreRefusedAndChangeNothing sends objects that an attacker with access to etcd can make. It
// expects that none of them decrypts, and that none changes the plugin's Status.
func TestHostileObjectsAreRefusedAndChangeNothing(t *testing.T) {
	onEachKey(t, func(t *testing.T, key rotatable) {
		all := storeEach(t, key, 2)
		generation := start(t, delayed(with(key.flags, "--key-generation=7"), 0))
		later := store(t, generation.client(t))
		generation.Stop()

		p, metrics := metered(t, key.flags)
		client := p.client(t)
		id := keyID(t, client)
		requests := hostile(all[0].sealed, all[1].sealed, later.sealed)
		if len(requests) < 40 {
			t.Errorf("only %d requests", len(requests))
		}
		for what, request := range requests {
			opened, err := client.Decrypt(t.Context(), "hostile", request)
			requireOneLine(t, message(err))
			if code := status.Code(err); code != codes.InvalidArgument && code != codes.NotFound {
				t.Errorf("%s: %d bytes, %v", what, len(opened), err)
			}
		}
		requireWritesUnder(t, client, id)
		requireAllOpen(t, client, all...)
		requireNoIncident(t, metrics)
		p.requireHealthy(t)
	})
}

// hostile returns requests made from two objects of two versions, and from one of a process with a much higher
// generation.
func hostile(one, two, later *service.EncryptResponse) map[string]*service.DecryptRequest {
	requests := map[string]*service.DecryptRequest{}
	add := func(what, keyID string, ciphertext []byte, annotations map[string][]byte) {
		requests[what] = &service.DecryptRequest{KeyID: keyID, Ciphertext: ciphertext, Annotations: annotations}
	}
	ours := one.Annotations
	scheme, _, _ := bytes.Cut(one.Ciphertext, []byte(":"))
	_, hash, _ := strings.Cut(one.KeyID, ".")
	body := one.Ciphertext[bytes.LastIndexByte(one.Ciphertext, ':')+1:]
	sealed := func(version string, body []byte) []byte {
		return fmt.Appendf(nil, "%s:v%s:%s", scheme, version, body)
	}

	add("a mix of two objects", one.KeyID, two.Ciphertext, ours)
	add("the other mix", two.KeyID, one.Ciphertext, ours)
	add("another body", one.KeyID, sealed("1", two.Ciphertext[bytes.LastIndexByte(two.Ciphertext, ':')+1:]), ours)
	add("a generation far above", later.KeyID, later.Ciphertext, later.Annotations)
	add("that generation's key id", later.KeyID, two.Ciphertext, ours)
	add("another name for version 2", "v2."+hash, two.Ciphertext, ours)
	add("another name for version 2 and body", "v2."+hash, one.Ciphertext, ours)
	add("no annotations", one.KeyID, one.Ciphertext, nil)
	add("foreign annotations", one.KeyID, one.Ciphertext, map[string][]byte{"a.b": nil})
	many := maps.Clone(ours)
	for i := range 1_000 {
		many[fmt.Sprintf("a%d.b", i)] = []byte("x")
	}
	add("a thousand annotations", one.KeyID, one.Ciphertext, many)
	add("annotations of a megabyte", one.KeyID, one.Ciphertext, map[string][]byte{"a.b": make([]byte, 1<<20)})

	for what, keyID := range map[string]string{
		"the largest version":       "v4294967295." + hash,
		"a version over 32 bits":    "v4294967296." + hash,
		"a version over 64 bits":    "v18446744073709551617." + hash,
		"a thousand digits":         "v" + strings.Repeat("9", 1_000) + "." + hash[:22],
		"version 0":                 "v0." + hash,
		"a leading zero":            "v01." + hash,
		"a sign":                    "v+1." + hash,
		"a negative version":        "v-1." + hash,
		"a blank":                   "v1 ." + hash,
		"digits of another script":  "v١." + hash,
		"a full-width v":            "ｖ1." + hash,
		"no version":                "v." + hash,
		"two dots":                  "v1.." + hash[:21],
		"a NUL at the end":          one.KeyID + "\x00",
		"a NUL within":              one.KeyID[:5] + "\x00" + one.KeyID[6:],
		"a new line":                one.KeyID + "\n",
		"letters that look alike":   strings.Replace(one.KeyID, "v", "ν", 1),
		"text from right to left":   "\u202e" + one.KeyID,
		"padded base64":             one.KeyID + "==",
		"1,024 bytes":               strings.Repeat("v", 1_024),
		"1,024 bytes of an id":      one.KeyID + strings.Repeat("A", 1_024-len(one.KeyID)),
		"1,024 bytes in 512 runes":  strings.Repeat("é", 512),
		"a path":                    "../../sys/raw/core",
		"a template":                "{{.Token}}${HOME}%s%n",
		"a list of accepted things": one.KeyID + "=1," + two.KeyID + "=2",
	} {
		add("key id: "+what, keyID, one.Ciphertext, ours)
	}
	for what, ciphertext := range map[string][]byte{
		"random bytes":               randomBytes(64),
		"1,024 random bytes":         randomBytes(1_024),
		"NULs":                       make([]byte, 60),
		"no body":                    sealed("1", nil),
		"no version":                 []byte(string(scheme) + "::" + string(body)),
		"version 0":                  sealed("0", body),
		"a leading zero":             sealed("01", body),
		"a newer version":            sealed("3", body),
		"a huge version":             sealed("99999999999999999999", body),
		"another scheme":             fmt.Appendf(nil, "x%s:v1:%s", scheme, body),
		"capitals":                   bytes.ToUpper(one.Ciphertext),
		"a body in hex":              sealed("1", fmt.Appendf(nil, "%x", body)),
		"a body that is too short":   sealed("1", []byte("AAAA")),
		"a body of zeros":            sealed("1", bytes.Repeat([]byte("A"), len(body)/4*4)),
		"a body in another alphabet": sealed("1", []byte(strings.Repeat("-_", len(body)/2))),
		"a body with a new line":     sealed("1", fmt.Appendf(nil, "%s\n%s", body[:40], body[40:])),
		"a field of JSON behind it":  fmt.Appendf(nil, `%s","key_version":2,"x":"`, one.Ciphertext),
		"twice":                      append(bytes.Clone(one.Ciphertext), one.Ciphertext...),
		"two with a comma":           fmt.Appendf(nil, "%s,%s", one.Ciphertext, one.Ciphertext),
		"one byte":                   []byte("v"),
		"none":                       nil,
		"invalid UTF-8":              append(bytes.Clone(one.Ciphertext), 0xff, 0xfe),
	} {
		add("ciphertext: "+what, one.KeyID, ciphertext, ours)
		add("foreign ciphertext: "+what, "1", ciphertext, nil)
	}
	return requests
}
