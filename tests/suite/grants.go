package suite

import (
	"strings"
	"testing"

	"vault-kube-kms.test/parts"
)

// RequireJustTheUse requires that a token may use a key (wrap, unwrap, read its metadata), and may do nothing
// else at a server: not with the key, not with another key, and not with its own role.
func RequireJustTheUse(t *testing.T, bao *parts.OpenBao, token, mount, key, role string) {
	t.Helper()
	as := bao.As(token)
	sealed, err := as.Ask("POST", mount+"/encrypt/"+key, map[string]any{"plaintext": "c2VlZA=="})
	Must(t, err)
	opened, err := as.Ask("POST", mount+"/decrypt/"+key, map[string]any{"ciphertext": sealed["ciphertext"]})
	Must(t, err)
	if opened["plaintext"] != "c2VlZA==" {
		t.Errorf("decrypt gave %v", opened)
	}
	_, err = as.Ask("GET", mount+"/keys/"+key, nil)
	Must(t, err)
	RequireDenied(t, as, [][2]string{
		{"POST", mount + "/keys/" + key + "/rotate"},
		{"POST", mount + "/keys/" + key + "/config"},
		{"POST", mount + "/keys/" + key + "/trim"},
		{"POST", mount + "/keys/" + key},
		{"POST", mount + "/keys/another"},
		{"DELETE", mount + "/keys/" + key},
		{"GET", mount + "/keys?list=true"},
		{"GET", mount + "/export/encryption-key/" + key},
		{"GET", mount + "/backup/" + key},
		{"POST", mount + "/restore/" + key},
		{"POST", mount + "/rewrap/" + key},
		{"POST", mount + "/datakey/plaintext/" + key},
		{"POST", mount + "/encrypt/another"},
		{"POST", mount + "/decrypt/another"},
		{"GET", "sys/mounts"},
		{"POST", "sys/mounts/" + mount + "-2"},
		{"GET", "sys/policies/acl/" + role},
		{"GET", "sys/policies/acl?list=true"},
		{"POST", "auth/approle/role/" + role + "/secret-id"},
		{"GET", "auth/approle/role/" + role},
	}...)
}

// RequireDenied requires that the server denies each request. A request is a method and a path.
func RequireDenied(t *testing.T, as *parts.OpenBao, requests ...[2]string) {
	t.Helper()
	for _, request := range requests {
		_, err := as.Ask(request[0], request[1], map[string]any{"plaintext": "c2VlZA=="})
		if err == nil || !strings.Contains(err.Error(), "403 Forbidden") {
			t.Errorf("%s %s: %v", request[0], request[1], err)
		}
	}
}
