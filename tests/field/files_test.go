package field_test

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync/atomic"
	"testing"
	"time"
	"unicode/utf16"

	"golang.org/x/sys/unix"

	"vault-kube-kms.test/parts"
	"vault-kube-kms.test/suite"
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

// dresses have a secret ID as editors and PowerShell write it.
var dresses = map[string]struct {
	wear func(id string) string
	// read tells that the secret ID is used. Otherwise the error names the file and the remedy.
	read bool
}{
	"no_newline":  {func(id string) string { return id }, true},
	"bom":         {func(id string) string { return "\ufeff" + id + "\n" }, true},
	"crlf":        {func(id string) string { return id + "\r\n" }, true},
	"bom_crlf":    {func(id string) string { return "\ufeff" + id + "\r\n" }, true},
	"utf_16":      {func(id string) string { return wide(id + "\r\n") }, false},
	"blank_lines": {func(id string) string { return "\n\n " + id + "\t\n\n" }, true},
	"nul":         {func(id string) string { return id + "\x00" }, false},
}

// wide returns a text in UTF-16 with a byte order mark.
func wide(text string) string {
	bytes := []byte{0xff, 0xfe}
	for _, unit := range utf16.Encode([]rune(text)) {
		bytes = append(bytes, byte(unit), byte(unit>>8))
	}
	return string(bytes)
}

// TestSecretIDWithBOMAndCRLF writes the secret ID in each dress before the start.
func TestSecretIDWithBOMAndCRLF(t *testing.T) {
	t.Parallel()
	for name, dress := range dresses {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			n := newTenant(t)
			must(t, os.WriteFile(n.SecretIDFile, []byte(dress.wear(n.SecretID)), 0o600))
			p := launch(t, n.Flags())
			if dress.read {
				p.waitHealthy(t, "at the start", startBound)
			} else {
				p.waitTold(t, startBound, `--approle-secret-id-path`, `; write `)
			}
			p.requireNeverTold(t, "does not know this pair", n.SecretID)
		})
	}
}

// TestNewSecretIDWithBOMAndCRLF writes a new secret ID in each dress while the plugin runs. It expects that logins use
// it, or that the log names the file and logins use the last valid secret ID.
func TestNewSecretIDWithBOMAndCRLF(t *testing.T) {
	t.Parallel()
	for name, dress := range dresses {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			n := newTenant(t)
			must(t, n.MakeRole(map[string]any{"token_ttl": "5s", "token_max_ttl": "5s"}))
			var sent atomic.Value
			f := newFrontAs(t, n.Bao, suite.Front{Answer: func(_ http.ResponseWriter, r *http.Request) bool {
				if isLogin(r) {
					text, _ := io.ReadAll(r.Body)
					r.Body = io.NopCloser(bytes.NewReader(text))
					var body struct {
						SecretID string `json:"secret_id"`
					}
					_ = json.Unmarshal(text, &body)
					sent.Store(body.SecretID)
				}
				return false
			}})
			p := start(t, f.flags(n))
			renewed, err := n.NewSecretID()
			must(t, err)
			replace(t, n.SecretIDFile, []byte(dress.wear(renewed)))
			expected := renewed
			if !dress.read {
				expected = n.SecretID
			}
			before := f.asked.Load()
			// The second login begins after the file was replaced.
			if !parts.EventuallyEvery(50*time.Millisecond, startBound, func() bool {
				if err := p.worksDespiteLoad(t.Context()); err != nil {
					t.Fatalf("a call fails: %v", err)
				}
				if used := sent.Load(); used != n.SecretID && used != renewed {
					t.Fatalf("a login sent another text of %d bytes", len(used.(string)))
				}
				return f.asked.Load() >= before+2 && sent.Load() == expected
			}) {
				t.Errorf("%d logins, and the expected secret ID is not used", f.asked.Load()-before)
			}
			if !dress.read {
				line := regexp.QuoteMeta(n.SecretIDFile) + `.*the last valid secret ID is used|the last valid secret ID is used.*` + regexp.QuoteMeta(n.SecretIDFile)
				requireTold(t, p.Printed(), line)
			}
			p.requireNeverTold(t, "does not know this pair", n.SecretID, renewed)
		})
	}
}

// oddFiles make something at a path that is not a file of a reasonable size.
var oddFiles = map[string]func(path string) error{
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
