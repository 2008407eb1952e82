package apiserver_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"vault-kube-kms.test/parts"
)

// setUp runs deploy/vault/setup.sh against the shared server, and returns the files that it wrote.
func setUp(t *testing.T, name string) (dir string) {
	t.Helper()
	bao := sharedBao(t)
	dir = filepath.Join(shortDir(t), "credentials")
	command := parts.Command("../../deploy/vault/setup.sh", dir)
	command.Env = append(command.Env, "HOME="+shortDir(t), "CLI="+needed(t, "BAO"), "MOUNT="+name, "KEY="+name,
		"ROLE="+name, "BAO_ADDR=https://"+bao.Address, "BAO_CACERT="+bao.CAFile, "BAO_TOKEN="+bao.Token)
	if out, err := command.CombinedOutput(); err != nil {
		t.Fatalf("setup.sh: %v\n%s", err, out)
	}
	return dir
}

// The script makes all that the program needs, twice without harm, and the role may do nothing else.
func TestSetupGrantsWhatIsNeededAndNothingElse(t *testing.T) {
	t.Parallel()
	bao, name := sharedBao(t), parts.RandomName()
	setUp(t, name)
	_, err := bao.Ask("POST", name+"/keys/"+name+"/rotate", nil)
	must(t, err)
	_, err = bao.Ask("POST", "auth/approle/role/"+name, map[string]any{"token_bound_cidrs": "127.0.0.0/8"})
	must(t, err)
	dir := setUp(t, name)
	made, err := bao.Ask("GET", "auth/approle/role/"+name, nil)
	must(t, err)
	if networks := fmt.Sprint(made["token_bound_cidrs"]); networks != "[127.0.0.0/8]" {
		t.Errorf("the second run changed the role: %s", networks)
	}
	key, err := bao.Ask("GET", name+"/keys/"+name, nil)
	must(t, err)
	if latest := key["latest_version"]; latest != 2.0 {
		t.Errorf("the second run changed the key: version %v", latest)
	}
	for _, file := range []string{"role-id", "secret-id"} {
		if mode := lstat(t, filepath.Join(dir, file)); mode != 0o400 {
			t.Errorf("%s has mode %v", file, mode)
		}
	}
	flags := []string{
		"--vault-address=https://" + bao.Address, "--tls-ca-file=" + bao.CAFile, "--vault-key-path=" + name + "/keys/" + name,
		"--approle-role-id-path=" + filepath.Join(dir, "role-id"), "--approle-secret-id-path=" + filepath.Join(dir, "secret-id"),
		"--listen-address=unix://" + filepath.Join(shortDir(t), "kms.sock"),
	}
	if out, code := checked(t, flags); code != 0 {
		t.Errorf("check: %d\n%s", code, out)
	}

	secretID, err := os.ReadFile(filepath.Join(dir, "secret-id"))
	must(t, err)
	roleID, err := os.ReadFile(filepath.Join(dir, "role-id"))
	must(t, err)
	role := &parts.OpenBao{HTTP: bao.HTTP, Address: bao.Address}
	role.Token, err = role.LogIn("approle", map[string]any{"role_id": string(roleID), "secret_id": string(secretID)})
	must(t, err)
	sealed, err := role.Ask("POST", name+"/encrypt/"+name, map[string]any{"plaintext": "c2VlZA=="})
	must(t, err)
	opened, err := role.Ask("POST", name+"/decrypt/"+name, map[string]any{"ciphertext": sealed["ciphertext"]})
	must(t, err)
	if opened["plaintext"] != "c2VlZA==" {
		t.Errorf("decrypt gave %v", opened)
	}
	for _, refused := range []struct{ method, path string }{
		{"POST", name + "/keys/" + name + "/rotate"},
		{"POST", name + "/keys/" + name + "/config"},
		{"POST", name + "/keys/" + name + "/trim"},
		{"POST", name + "/keys/" + name},
		{"DELETE", name + "/keys/" + name},
		{"GET", name + "/keys?list=true"},
		{"GET", name + "/export/encryption-key/" + name},
		{"GET", name + "/backup/" + name},
		{"POST", name + "/restore/" + name},
		{"POST", name + "/rewrap/" + name},
		{"POST", name + "/datakey/plaintext/" + name},
		{"POST", name + "/encrypt/another"},
		{"POST", name + "/decrypt/another"},
		{"GET", "sys/mounts"},
		{"GET", "sys/policies/acl/" + name},
		{"POST", "auth/approle/role/" + name + "/secret-id"},
		{"GET", "auth/approle/role/" + name},
	} {
		_, err := role.Ask(refused.method, refused.path, map[string]any{"plaintext": "c2VlZA=="})
		if err == nil || !strings.Contains(err.Error(), "403 Forbidden") {
			t.Errorf("%s %s: %v", refused.method, refused.path, err)
		}
	}
}
