package e2e_test

import (
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"vault-kube-kms.test/cluster"
	"vault-kube-kms.test/parts"
	"vault-kube-kms.test/suite"
)

const moving = "moving.md"

// TestAKeyMovesBetweenKeepersAndBack types the commands of docs/moving.md for a key that moves from HashiCorp
// Vault to another mount of OpenBao, and then the same commands with exchanged names. The key is rotated at each
// server. It expects that all Secrets are read at each step, and that the key ids stay.
func TestAKeyMovesBetweenKeepersAndBack(t *testing.T) {
	t.Parallel()
	const mount = "kek"
	n := onVault(t, mount, "prod")
	createMany(t, n.api, 0, 20)
	first := n.onlyKeyID(t)
	must(t, n.Rotate())
	// At their start the plugin reads the key, and the API server asks for the key id.
	n.plugin.Stop()
	must(t, n.plugin.Restart())
	n.restartAPIServer(t)
	second := n.writesUnder(t, n.api, first)
	count := len(n.stored(t))

	for _, step := range []string{"auto_rotate_period=0", "transit/restore", "the same key id", "systemctl restart"} {
		n.types(t, step, forth)
	}
	n.restartAPIServer(t)
	n.api.requireList(t, count)
	n.requireWritesUnder(t, "at-openbao", second)

	// Before a rotation the way back needs no copy of the key.
	n.types(t, "systemctl restart", back)
	n.requireWritesUnder(t, "at-vault-again", second)
	if settings, err := os.ReadFile(n.dir + "/vault-kube-kms.env"); err != nil || !strings.Contains(string(settings), n.Bao.Address) {
		t.Errorf("the plugin does not use Vault: %v: %s", err, settings)
	}
	n.types(t, "systemctl restart", forth)
	n.restartAPIServer(t)
	n.api.requireList(t, count+2)

	n.types(t, "bao write -f", forth)
	third := n.writesUnder(t, n.api, second)
	n.api.migrate(t)
	if n.onlyKeyID(t) != third {
		t.Error("the migration left objects")
	}
	n.requireForce(t, mount)
	n.types(t, "vault delete", forth)
	n.restartAPIServer(t)
	count = len(n.stored(t))
	n.api.requireList(t, count)

	for _, step := range []string{
		"auto_rotate_period=0", "transit/restore", "the same key id", "systemctl restart", "vault delete",
	} {
		n.types(t, step, back)
	}
	n.restartAPIServer(t)
	n.api.requireList(t, count)
	n.requireWritesUnder(t, "back-at-vault", third)
	n.types(t, "bao write -f", back)
	fourth := n.writesUnder(t, n.api, third)
	if !strings.HasPrefix(fourth, "v4.") {
		t.Errorf("Vault rotated to %s", fourth)
	}
	n.bao.Kill()
	n.restartAPIServer(t)
	n.api.requireList(t, len(n.stored(t)))
}

// TestANewKeyAtAnotherKeeper types the commands of docs/moving.md for a new key at OpenBao beside the former one
// at HashiCorp Vault. It expects that all Secrets are read in each stage, and without Vault at the end.
func TestANewKeyAtAnotherKeeper(t *testing.T) {
	t.Parallel()
	n := onVault(t, "transit", "")
	createMany(t, n.api, 0, 20)
	n.types(t, "systemctl start", forth)
	lines := strings.Split(strings.TrimSpace(fenced(t, "yaml")), "\n")
	endpoints := strings.NewReplacer(
		"unix:///run/vault-kube-kms/vault-kube-kms.sock", n.plugin.Endpoint,
		"unix:///run/vault-kube-kms-openbao/vault-kube-kms.sock", n.second.Endpoint,
	)
	var providers []string
	for _, line := range lines {
		providers = append(providers, strings.TrimPrefix(endpoints.Replace(line), "- "))
	}
	n.reconfigure(t, providers...)
	n.api.requireList(t, 20)
	slices.Reverse(providers)
	n.reconfigure(t, providers...)
	n.api.requireList(t, 20)
	n.types(t, "k8s:enc:kms:v2:", forth)
	n.reconfigure(t, providers[0])
	n.plugin.Stop()
	n.Bao.Kill()
	n.restartAPIServer(t)
	n.api.requireList(t, 20)
	n.api.mustCreate(t, "without-vault")
}

// TestKeyIDsDoNotDependOnTheServer expects that a key has the same id at both servers if its place is the same.
func TestKeyIDsDoNotDependOnTheServer(t *testing.T) {
	t.Parallel()
	var ids []string
	var backup any
	for _, variable := range []string{"VAULT", "BAO"} {
		dir := shortDir(t)
		server, err := parts.StartOpenBao(parts.Way{Logs: dir}, needed(t, variable), dir)
		must(t, err)
		t.Cleanup(server.Kill)
		tenant, err := server.NewTenant(cluster.Key, dir, 60, parts.UseOfKey...)
		must(t, err)
		if backup == nil {
			must(t, tenant.MakeKey())
			backup = backedUp(t, server, "transit")
		} else {
			_, err := server.Ask("POST", "transit/restore/"+cluster.Key, map[string]any{"backup": backup})
			must(t, err)
		}
		flags := append(tenant.Flags(), "--listen-address=unix://"+dir+"/kms.sock")
		// Its exit code is that of a warning: the key is exportable.
		out, _ := parts.Command(append([]string{needed(t, "PROVIDER"), "check"}, flags...)...).CombinedOutput()
		writes := regexp.MustCompile(`writes, as (v1\.[^;]*);`).FindSubmatch(out)
		if writes == nil {
			t.Fatalf("check prints %s", out)
		}
		ids = append(ids, string(writes[1]))
	}
	if ids[0] != ids[1] {
		t.Errorf("the key id is %s at Vault and %s at OpenBao", ids[0], ids[1])
	}
}

// moved is a control plane whose key is at HashiCorp Vault, and the OpenBao to which the key moves. The plugin reads
// its settings at each start from vault-kube-kms.env, as the service of systemd does.
type moved struct {
	*controlPlane
	bao *parts.OpenBao
	// second is the instance of the plugin that uses OpenBao, if a document starts it.
	second *parts.Plugin

	mount, dir, prelude string
}

// onVault starts a control plane on Vault, and an OpenBao with a mount for the key. The settings of the plugin have
// this lineage at both, if it is not empty.
func onVault(t *testing.T, mount, lineage string) *moved {
	t.Helper()
	dir := shortDir(t)
	vault := needed(t, "VAULT")
	// The first plugin of the cluster is replaced before the API server writes a Secret.
	c := start(t, delayed(0), func(s *cluster.Settings) {
		s.Programs.OpenBao = vault
		if lineage != "" {
			s.PluginFlags = append(s.PluginFlags, "--key-lineage="+lineage)
		}
	})
	n := &moved{controlPlane: c, mount: mount, dir: dir}
	for _, folder := range []string{"server", "vault", "openbao", "bin", "services"} {
		must(t, os.Mkdir(filepath.Join(dir, folder), 0o700))
	}
	var err error
	n.bao, err = parts.StartOpenBao(parts.Way{Logs: dir}, needed(t, "BAO"), filepath.Join(dir, "server"))
	must(t, err)
	t.Cleanup(n.bao.Kill)
	if mount != "transit" {
		_, err = n.bao.Ask("POST", "sys/mounts/"+mount, map[string]any{"type": "transit"})
		must(t, err)
	}
	n.writeSettings(t, lineage)
	must(t, os.Symlink(deployed(t, "."), filepath.Join(dir, "deploy")))
	must(t, c.WriteEnvironment())
	systemd := httptest.NewServer(http.HandlerFunc(n.systemctl))
	t.Cleanup(systemd.Close)
	n.prelude = fmt.Sprintf(`set -e
. %s
export PATH=%s/bin:$PATH HOME=%[2]s KEY=%[3]s ROLE=%[3]s VAULT_KUBE_KMS_LISTEN_ADDRESS=%[4]s
systemctl() { curl -fsS -G %[5]s --data-urlencode "typed=$*"; }
cd %[2]s
`, cluster.EnvironmentFile(c.Dir), dir, cluster.Key, c.plugin.Endpoint, systemd.URL)
	c.plugin.Stop()
	c.plugin, err = n.startPlugin("vault-kube-kms", c.plugin.Endpoint)
	must(t, err)
	t.Cleanup(func() {
		for _, plugin := range []*parts.Plugin{c.plugin, n.second} {
			if plugin == nil {
				continue
			}
			plugin.Stop()
			if t.Failed() {
				t.Logf("plugin at %s printed:\n%s", plugin.Endpoint, parts.Tail(plugin.Printed()))
			}
		}
	})
	return n
}

// writeSettings writes the environment file, the credentials and the CLI for each server.
func (n *moved) writeSettings(t *testing.T, lineage string) {
	t.Helper()
	common := "VAULT_KUBE_KMS_ROTATION_DELAY=0s\n"
	if lineage != "" {
		common += "VAULT_KUBE_KMS_KEY_LINEAGE=" + lineage + "\n"
	}
	put := func(name, text string, mode os.FileMode) {
		must(t, os.WriteFile(filepath.Join(n.dir, name), []byte(text), mode))
	}
	put("vault/role-id", n.Tenant.RoleID, 0o600)
	put("vault/secret-id", n.Tenant.SecretID, 0o600)
	for _, one := range []struct {
		name, cli, mount string
		server           *parts.OpenBao
	}{{"vault", "vault", "transit", n.Bao}, {"openbao", "bao", n.mount, n.bao}} {
		authority, err := os.ReadFile(one.server.CAFile)
		must(t, err)
		put(one.name+"/ca.pem", string(authority), 0o600)
		here := strings.NewReplacer(
			"https://openbao.example:8200", "https://"+one.server.Address,
			"/etc/vault-kube-kms/openbao/", filepath.Join(n.dir, one.name)+"/",
			"transit/keys/kubernetes", one.mount+"/keys/"+cluster.Key,
		)
		put(one.name+".env", here.Replace(fenced(t, "sh"))+common, 0o600)
		// The CLI of OpenBao talks to both servers.
		put("bin/"+one.cli, fmt.Sprintf("#!/bin/sh\nexec env BAO_ADDR=https://%s BAO_CACERT=%s BAO_TOKEN=%s %s \"$@\"\n",
			one.server.Address, one.server.CAFile, one.server.Token, needed(t, "BAO")), 0o700)
	}
	former, err := os.ReadFile(filepath.Join(n.dir, "vault.env"))
	must(t, err)
	put("vault-kube-kms.env", string(former), 0o600)
}

// startPlugin starts a plugin that reads NAME.env at each start.
func (n *moved) startPlugin(name, endpoint string) (*parts.Plugin, error) {
	// Not in the PATH of the document: there the program itself gets its settings from the command.
	program := filepath.Join(n.dir, "services", name)
	text := fmt.Sprintf("#!/bin/sh\nset -a\n. %s/%s.env\nexec %s \"$@\"\n", n.dir, name, n.Programs.Plugin)
	if err := os.WriteFile(program, []byte(text), 0o700); err != nil {
		return nil, err
	}
	return parts.StartPlugin(parts.Way{Logs: n.dir}, name, program, endpoint)
}

// systemctl does what the command of this name does in the document.
func (n *moved) systemctl(w http.ResponseWriter, r *http.Request) {
	var err error
	switch typed := r.FormValue("typed"); typed {
	case "restart vault-kube-kms":
		n.plugin.Stop()
		err = n.plugin.Restart()
	case "start vault-kube-kms@openbao":
		n.second, err = n.startPlugin("openbao", "unix://"+filepath.Join(n.dir, "openbao.sock"))
	default:
		err = errors.New("unknown: " + typed)
	}
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
	}
}

// A direction changes the commands of the document.
type direction struct{ *strings.Replacer }

var (
	forth = direction{strings.NewReplacer()}
	// back exchanges the servers as the document says.
	back = direction{strings.NewReplacer(
		"deploy/vault/", "deploy/vault/", "vault-kube-kms/vault-kube-kms", "vault-kube-kms/vault-kube-kms",
		"vault-kube-kms/vault", "vault-kube-kms/openbao",
		"vault-kube-kms", "vault-kube-kms", "vault_", "vault_", "openbao", "vault", "bao", "vault", "vault", "bao",
	)}
	// toBao is a command with a path of OpenBao's mount.
	toBao = regexp.MustCompile(`(bao (?:read|write|delete)(?: -\S+)* )transit/`)
)

// types types the block of the document that has a command with this text.
func (n *moved) types(t *testing.T, containing string, direction direction) {
	t.Helper()
	blocks := slices.DeleteFunc(suite.Consoles(t, moving), func(block []suite.Typed) bool {
		return !slices.ContainsFunc(block, func(step suite.Typed) bool { return strings.Contains(step.Command, containing) })
	})
	if len(blocks) != 1 {
		t.Fatalf("%d blocks of %s have %q", len(blocks), moving, containing)
	}
	block := blocks[0]
	for index := range block {
		command := direction.Replace(block[index].Command)
		block[index].Command = toBao.ReplaceAllString(command, "${1}"+n.mount+"/")
	}
	mount := n.mount
	if direction == back {
		mount = "transit"
	}
	here := strings.NewReplacer(
		"localhost:9090", n.plugin.MetricsAddress(), "/etc/vault-kube-kms/", n.dir+"/", "/dev/shm/", n.dir+"/",
		"/keys/kubernetes", "/keys/"+cluster.Key, "/backup/kubernetes", "/backup/"+cluster.Key,
		"/restore/kubernetes", "/restore/"+cluster.Key, "role/vault-kube-kms", "role/"+cluster.Key,
	)
	suite.Type(t, moving, block, n.prelude+"export MOUNT="+mount+"\n", here)
	if t.Failed() {
		t.FailNow()
	}
}

// requireWritesUnder requires that a new Secret is stored under a key id.
func (n *moved) requireWritesUnder(t *testing.T, name, id string) {
	t.Helper()
	n.api.mustCreate(t, name)
	if now := n.keyIDOf(t, name); now != id {
		t.Errorf("%s is written under %s and not under %s", name, now, id)
	}
}

// requireForce requires that a server with an older state of the key takes the newer one only with `force`, and that
// the key stays exportable.
func (n *moved) requireForce(t *testing.T, mount string) {
	t.Helper()
	backup := backedUp(t, n.bao, mount)
	restore := "transit/restore/" + cluster.Key
	if _, err := n.Bao.Ask("POST", restore, map[string]any{"backup": backup}); err == nil || !strings.Contains(err.Error(), "already exists") {
		t.Errorf("restore without force: %v", err)
	}
	_, err := n.Bao.Ask("POST", restore, map[string]any{"backup": backup, "force": true})
	must(t, err)
	keys := func(server *parts.OpenBao, mount string) map[string]any {
		_, err := server.Ask("POST", mount+"/keys/"+cluster.Key+"/config", map[string]any{"exportable": false})
		must(t, err)
		key, err := server.Ask("GET", mount+"/keys/"+cluster.Key, nil)
		must(t, err)
		if key["exportable"] != true {
			t.Errorf("the key is no longer exportable at %s", server.Address)
		}
		return key["keys"].(map[string]any)
	}
	if at, from := keys(n.Bao, "transit"), keys(n.bao, mount); !reflect.DeepEqual(at, from) || len(from) != 3 {
		t.Errorf("Vault has the versions %v, and OpenBao %v", at, from)
	}
}

// backedUp returns a backup of the key.
func backedUp(t *testing.T, server *parts.OpenBao, mount string) any {
	t.Helper()
	_, err := server.Ask("POST", mount+"/keys/"+cluster.Key+"/config",
		map[string]any{"exportable": true, "allow_plaintext_backup": true})
	must(t, err)
	backup, err := server.Ask("GET", mount+"/backup/"+cluster.Key, nil)
	must(t, err)
	return backup["backup"]
}

// fenced returns the only block of the document in this language.
func fenced(t *testing.T, language string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("../../docs", moving))
	must(t, err)
	blocks := regexp.MustCompile("(?s)\n```"+language+"\n(.*?)```").FindAllStringSubmatch(string(text), -1)
	if len(blocks) != 1 {
		t.Fatalf("%s has %d blocks of %s", moving, len(blocks), language)
	}
	return blocks[0][1]
}
