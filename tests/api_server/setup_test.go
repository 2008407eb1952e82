package apiserver_test

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"vault-kube-kms.test/parts"
	"vault-kube-kms.test/suite"
)

// setUp runs deploy/vault/setup.sh against the shared server, with these variables, and returns the folder of its
// files. The script finds only OpenBao's CLI, under the name cli.
func setUp(t *testing.T, cli, name string, variables ...string) (dir string) {
	t.Helper()
	bao, programs := sharedBao(t), shortDir(t)
	must(t, os.Symlink(needed(t, "BAO"), filepath.Join(programs, cli)))
	dir = filepath.Join(shortDir(t), "credentials")
	command := parts.Command("../../deploy/vault/setup.sh", dir)
	prefix := strings.ToUpper(cli) + "_"
	command.Env = slices.Concat(command.Env, []string{
		"PATH=" + programs + ":/usr/bin:/bin", "HOME=" + shortDir(t), "MOUNT=" + name, "KEY=" + name, "ROLE=" + name,
		prefix + "ADDR=https://" + bao.Address, prefix + "CACERT=" + bao.CAFile, prefix + "TOKEN=" + bao.Token,
	}, variables)
	if out, err := command.CombinedOutput(); err != nil {
		t.Fatalf("setup.sh: %v\n%s", err, out)
	}
	return dir
}

// setUpFlags returns the flags of a provider that uses the files of the script.
func setUpFlags(t *testing.T, name, dir string) []string {
	t.Helper()
	bao := sharedBao(t)
	return []string{
		"--vault-address=https://" + bao.Address, "--tls-ca-file=" + bao.CAFile, "--vault-key-path=" + name + "/keys/" + name,
		"--approle-role-id-path=" + filepath.Join(dir, "role-id"), "--approle-secret-id-path=" + filepath.Join(dir, "secret-id"),
	}
}

// TestSetupGrantsWhatIsNeededAndNothingElse expects that the script makes all that the program needs, that a
// second run changes nothing, and that the role may do nothing else. The script calls `vault`, or `bao` if CLI
// says so.
func TestSetupGrantsWhatIsNeededAndNothingElse(t *testing.T) {
	t.Parallel()
	bao, name := sharedBao(t), parts.RandomName()
	setUp(t, "vault", name)
	_, err := bao.Ask("POST", name+"/keys/"+name+"/rotate", nil)
	must(t, err)
	_, err = bao.Ask("POST", "auth/approle/role/"+name, map[string]any{"token_bound_cidrs": "127.0.0.0/8"})
	must(t, err)
	dir := setUp(t, "bao", name, "CLI=bao")
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
	listen := "--listen-address=unix://" + filepath.Join(shortDir(t), "kms.sock")
	if out, code := checked(t, setUpFlags(t, name, dir), listen); code != 0 {
		t.Errorf("check: %d\n%s", code, out)
	}

	secretID, err := os.ReadFile(filepath.Join(dir, "secret-id"))
	must(t, err)
	roleID, err := os.ReadFile(filepath.Join(dir, "role-id"))
	must(t, err)
	token, err := bao.LogIn("approle", map[string]any{"role_id": string(roleID), "secret_id": string(secretID)})
	must(t, err)
	suite.RequireJustTheUse(t, bao.OpenBao, token, name, name, name)
}

// TestSetupWrapsSecretIDs expects that a wrapped secret ID works, and that the issuer's policy allows only new
// wrapped secret IDs. The role is at a mount of its own.
func TestSetupWrapsSecretIDs(t *testing.T) {
	t.Parallel()
	bao, name := sharedBao(t), parts.RandomName()
	mount := name + "/nodes"
	dir := setUp(t, "vault", name, "WRAP_TTL=5m", "AUTH_MOUNT="+mount)
	flags := append(setUpFlags(t, name, dir), "--approle-secret-id-wrapped", "--auth-mount="+mount)
	start(t, flags)

	made, err := bao.LogInAs(name + "-issuer")
	must(t, err)
	issuer, path := bao.As(made), "auth/"+mount+"/role/"+name+"/secret-id"
	token, err := issuer.Wrap("POST", path, nil)
	must(t, err)
	must(t, os.Chmod(filepath.Join(dir, "secret-id"), 0o600))
	must(t, os.WriteFile(filepath.Join(dir, "secret-id"), []byte(token), 0o600))
	start(t, flags)

	suite.RequireDenied(t, issuer, [][2]string{
		{"POST", path},
		{"GET", path + "?list=true"},
		{"POST", "auth/" + mount + "/role/" + name + "/custom-secret-id"},
		{"POST", path + "/lookup"},
		{"GET", "auth/" + mount + "/role/" + name},
		{"POST", "auth/" + mount + "/role/" + name},
		{"GET", name + "/keys/" + name},
		{"POST", name + "/encrypt/" + name},
	}...)
}

// TestThePolicyServesFromTheNamespaceOfTheLogin expects that the printed policy works for a login in a namespace
// above the key's namespace.
func TestThePolicyServesFromTheNamespaceOfTheLogin(t *testing.T) {
	t.Parallel()
	suite.NeedsOpenBao(t, "namespaces")
	bao, name := sharedBao(t), parts.RandomName()
	inner, err := bao.Within(name)
	must(t, err)
	n, err := bao.NewTenant(name, shortDir(t), 60, "read keys")
	must(t, err)
	_, err = inner.Ask("POST", "transit/keys/"+name, map[string]any{"type": "aes256-gcm96"})
	must(t, err)
	flags := append(n.Flags(), "--vault-namespace="+name, "--vault-auth-namespace=root",
		"--listen-address=unix://"+filepath.Join(shortDir(t), "kms.sock"))
	if out, code := checked(t, flags); code != 2 {
		t.Errorf("check without a policy: %d\n%s", code, out)
	}
	policy, err := parts.Command(append([]string{needed(t, "PROVIDER"), "policy"}, flags...)...).Output()
	must(t, err)
	bao.must(t, "PUT", "sys/policies/acl/"+name, map[string]any{"policy": string(policy)})
	if out, code := checked(t, flags); code != 0 {
		t.Errorf("check: %d\n%s", code, out)
	}
}
