package field_test

import (
	"encoding/base64"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"unicode/utf16"

	"golang.org/x/sys/unix"

	"vault-kube-kms.test/parts"
)

// A credential in something that is not part of it: nothing is sent, and the cause is named. Once
// the credential stands alone all is well.
func TestCredentialsInWrappings(t *testing.T) {
	t.Parallel()
	encoded := func(id string) string { return base64.StdEncoding.EncodeToString([]byte(id)) }
	for trial, c := range map[string]struct {
		wrap func(id string) string
		told string
	}{
		"secret_id_in_quotes":        {func(id string) string { return `"` + id + `"` }, `(?i)quot`},
		"secret_id_in_single_quotes": {func(id string) string { return "'" + id + "'" }, `(?i)quot`},
		"secret_id_in_json":          {func(id string) string { return `{"data":{"secret_id":"` + id + `"}}` }, `JSON`},
		"secret_id_in_base64":        {encoded, `(?i)base64`},
	} {
		for flag, file := range map[string]string{"--approle-secret-id-path": trial, "--approle-role-id-path": strings.Replace(trial, "secret", "role", 1)} {
			t.Run(file, func(t *testing.T) {
				t.Parallel()
				n := newTenant(t)
				f := newFront(t, n.Bao)
				id, path, flags := n.SecretID, n.SecretIDFile, f.flags(n)
				if flag == "--approle-role-id-path" {
					id, path = n.RoleID, filepath.Join(shortDir(t), "role-id")
					flags = append(withoutFlag(flags, "--approle-role-id"), flag+"="+path)
				}
				must(t, os.WriteFile(path, []byte(c.wrap(id)+"\n"), 0o600))
				p := launch(t, flags)
				p.waitTold(t, startBound, flag, c.told)
				printed := p.checks(t)
				requireTold(t, printed, flag, c.told)
				if asked := f.asked.Load(); asked != 0 {
					t.Errorf("%d logins were sent", asked)
				}
				must(t, os.WriteFile(path, []byte(id+"\n"), 0o600))
				p.waitHealthy(t, "after the credential stands alone", fileBound+slack)
				p.requireNeverTold(t, "does not know this pair", n.SecretID, encoded(n.SecretID))
			})
		}
	}
}

// What editors and PowerShell write is read, or the error names the file and the remedy.
func TestSecretIDWithBOMAndCRLF(t *testing.T) {
	t.Parallel()
	wide := func(text string) []byte {
		bytes := []byte{0xff, 0xfe}
		for _, unit := range utf16.Encode([]rune(text)) {
			bytes = append(bytes, byte(unit), byte(unit>>8))
		}
		return bytes
	}
	for name, dress := range map[string]func(id string) []byte{
		"bom":         func(id string) []byte { return []byte("\ufeff" + id + "\n") },
		"crlf":        func(id string) []byte { return []byte(id + "\r\n") },
		"bom_crlf":    func(id string) []byte { return []byte("\ufeff" + id + "\r\n") },
		"utf_16":      func(id string) []byte { return wide(id + "\r\n") },
		"blank_lines": func(id string) []byte { return []byte("\n\n " + id + "\t\n\n") },
		"nul":         func(id string) []byte { return []byte(id + "\x00") },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			n := newTenant(t)
			must(t, os.WriteFile(n.SecretIDFile, dress(n.SecretID), 0o600))
			p := launch(t, n.Flags())
			var last error
			if !parts.Eventually(startBound, func() bool {
				last = p.works(t.Context())
				return last == nil || matchesAll(last.Error(), []string{`--approle-secret-id-path`, `; write `})
			}) {
				t.Errorf("neither read nor named: %v", last)
			}
			p.requireNeverTold(t, "does not know this pair", n.SecretID)
		})
	}
}

// oddFiles make something at a path that is not a file of a reasonable size.
var oddFiles = map[string]func(path string) error{
	// It stands for a network file system that hangs as well: opening or reading it does not end.
	"fifo":      func(path string) error { return unix.Mkfifo(path, 0o600) },
	"device":    func(path string) error { return os.Symlink("/dev/zero", path) },
	"terminal":  func(path string) error { return os.Symlink("/dev/ptmx", path) },
	"directory": func(path string) error { return os.Mkdir(path, 0o700) },
	"enormous": func(path string) error {
		err := os.WriteFile(path, nil, 0o600)
		if err == nil {
			err = os.Truncate(path, 1<<40)
		}
		return err
	},
}

// A FIFO, a device, a directory or an enormous file where a credential is expected: reading ends,
// the error names it, `check` ends too, and a plain file in its place heals it.
func TestOddFilesAsCredentials(t *testing.T) {
	t.Parallel()
	for what, create := range oddFiles {
		for _, kind := range []string{"secret_id", "role_id"} {
			t.Run(kind+"_"+what, func(t *testing.T) {
				t.Parallel()
				n := newTenant(t)
				id, path, flags, flag := n.SecretID, n.SecretIDFile, n.Flags(), "--approle-secret-id-path"
				if kind == "role_id" {
					id, path, flag = n.RoleID, filepath.Join(shortDir(t), "role-id"), "--approle-role-id-path"
					flags = append(withoutFlag(flags, "--approle-role-id"), flag+"="+path)
				} else {
					must(t, os.Remove(path))
				}
				must(t, create(path))
				p := launch(t, flags)
				p.waitTold(t, startBound, flag, path)
				requireTold(t, p.checks(t), flag, path)
				replace(t, path, []byte(id+"\n"))
				p.waitHealthy(t, "after a plain file took its place", fileBound+slack)
				p.requireNeverTold(t, "keeper's load")
			})
		}
	}
}

// replace puts a plain file in the place of whatever is there.
func replace(t *testing.T, path string, text []byte) {
	t.Helper()
	must(t, os.WriteFile(path+".new", text, 0o600))
	if info, err := os.Lstat(path); err == nil && info.IsDir() {
		must(t, os.Remove(path))
	}
	must(t, os.Rename(path+".new", path))
}

// The file of the secret ID turns into a FIFO while a session is open: calls go on, and so do
// logins, with what was last read.
func TestSecretIDFIFOWhileRunning(t *testing.T) {
	t.Parallel()
	n := newTenant(t)
	must(t, n.MakeRole(map[string]any{"token_ttl": "5s", "token_max_ttl": "5s"}))
	f := newFront(t, n.Bao)
	p := start(t, f.flags(n))
	must(t, os.Remove(n.SecretIDFile))
	must(t, unix.Mkfifo(n.SecretIDFile, 0o600))
	before := f.asked.Load()
	if !parts.Eventually(startBound, func() bool {
		if err := p.worksDespiteLoad(t.Context()); err != nil {
			t.Fatalf("a call fails: %v", err)
		}
		return f.asked.Load() >= before+2
	}) {
		t.Error("no more logins")
	}
}

// littleMemory ends a program that reads a device without end.
var littleMemory = wrapper{"sh", "-c", `ulimit -v 2097152; exec "$0" "$@"`}

// The same as the configuration: the process ends soon, and names it.
func TestOddFilesAsConfiguration(t *testing.T) {
	t.Parallel()
	for what, create := range oddFiles {
		t.Run("config_"+what, func(t *testing.T) {
			t.Parallel()
			path := filepath.Join(shortDir(t), "config.toml")
			must(t, create(path))
			requireTold(t, refusedStart(t, []string{"--config=" + path}, littleMemory...), `--config|config`, path)
			printed, code := check(t, []string{"--config=" + path}, littleMemory...)
			requireTold(t, printed, path)
			if code != 2 {
				t.Errorf("check exits with %d: %s", code, printed)
			}
		})
	}
}
