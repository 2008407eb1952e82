package conformance_test

import (
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
	mock "k8s.io/apiserver/pkg/storage/value/encrypt/envelope/testing/v2"

	"vault-kube-kms.test/parts"
)

// verdicts are the ids of the rules by verdict.
type verdicts map[string][]string

// conformance runs vault-kube-kmsctl against a socket. It returns its exit code and what it found.
func conformance(t *testing.T, socket string, flags ...string) (int, verdicts) {
	t.Helper()
	args := append([]string{needed(t, "KMSCTL"), "conformance", socket, "--output=json"}, flags...)
	command := parts.Command(args...)
	printed, err := command.Output()
	var failed *exec.ExitError
	if err != nil && !errors.As(err, &failed) {
		t.Fatal(err)
	}
	if len(printed) == 0 {
		return command.ProcessState.ExitCode(), nil
	}
	var report struct {
		Rules []struct{ ID, Verdict, Severity, Evidence string }
	}
	if err := json.Unmarshal(printed, &report); err != nil {
		t.Fatalf("%v: %s", err, printed)
	}
	found := verdicts{}
	for _, rule := range report.Rules {
		// The machine of a test may be slow.
		if strings.HasSuffix(rule.ID, "-fast") {
			continue
		}
		if rule.Verdict != "holds" {
			t.Logf("%s %s: %s", rule.Verdict, rule.ID, rule.Evidence)
		}
		found[rule.Verdict] = append(found[rule.Verdict], rule.ID)
	}
	return command.ProcessState.ExitCode(), found
}

// hook returns a command for a hook of vault-kube-kmsctl. The command runs do in this process, and waits for it.
func hook(t *testing.T, do func() error) string {
	t.Helper()
	dir := shortDir(t)
	asked, done := filepath.Join(dir, "asked"), filepath.Join(dir, "done")
	must(t, unix.Mkfifo(asked, 0o600))
	must(t, unix.Mkfifo(done, 0o600))
	go func() {
		if _, err := os.ReadFile(asked); err == nil {
			if err := do(); err != nil {
				t.Error(err)
			}
			_ = os.WriteFile(done, nil, 0o600)
		}
	}()
	return fmt.Sprintf(": > %s; cat %s", asked, done)
}

func TestOurPluginBreaksNoRule(t *testing.T) {
	t.Parallel()
	for name, begin := range map[string]func(*testing.T) ours{"a key file": onKeyFile, "Transit": onTransit} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p, junit := begin(t), filepath.Join(t.TempDir(), "junit.xml")
			restart := hook(t, func() error {
				if !p.Stop() {
					return errors.New("the plugin did not end on SIGTERM")
				}
				return p.Restart()
			})
			code, found := conformance(t, p.Endpoint, "--junit="+junit, "--rotate="+hook(t, p.rotate), "--restart="+restart)
			if code != 0 || len(found["broken"])+len(found["skipped"]) > 0 || len(found["holds"]) < 50 {
				t.Errorf("exit code %d: %v", code, found)
			}
			var report struct {
				Suites []struct {
					Tests    int `xml:"tests,attr"`
					Failures int `xml:"failures,attr"`
				} `xml:"testsuite"`
			}
			printed, err := os.ReadFile(junit)
			must(t, err)
			must(t, xml.Unmarshal(printed, &report))
			if len(report.Suites) != 1 || report.Suites[0].Tests < len(found["holds"]) || report.Suites[0].Failures != 0 {
				t.Errorf("JUnit: %+v", report)
			}
		})
	}
}

// TestTheMockOfKubernetesBreaksKnownRules tries the plugin with which Kubernetes tests its API server. It only
// encodes in base64, and binds nothing.
func TestTheMockOfKubernetesBreaksKnownRules(t *testing.T) {
	t.Parallel()
	socket := shortDir(t) + "/kms.sock"
	plugin := mock.NewBase64Plugin(quiet{t}, socket)
	rotate := hook(t, func() error {
		plugin.UpdateKeyID()
		return nil
	})
	code, found := conformance(t, "unix://"+socket, "--rotate="+rotate)
	expected := []string{
		"encrypt-hides", "encrypt-fresh", "encrypt-empty", "encrypt-sizes", "decrypt-never-wrong",
		"decrypt-ciphertext-bound", "decrypt-empty", "decrypt-key-id-bound", "decrypt-annotations-bound",
		"error-codes", "rotation-key-id-bound",
	}
	if code != 1 || !slices.Equal(found["broken"], expected) {
		t.Errorf("exit code %d: %s", code, strings.Join(found["broken"], " "))
	}
}

// quiet is a test that the plugin of Kubernetes cannot fail. The plugin reports the authority of older API servers
// as an error.
type quiet struct{ testing.TB }

func (quiet) Errorf(string, ...any) {}

func TestASocketWithoutAPluginIsNoAnswer(t *testing.T) {
	t.Parallel()
	if code, _ := conformance(t, "unix://"+shortDir(t)+"/kms.sock", "--wait=0"); code != 2 {
		t.Errorf("exit code %d", code)
	}
	if code, _ := conformance(t, "tcp://127.0.0.1:1"); code != 64 {
		t.Errorf("exit code %d", code)
	}
}
