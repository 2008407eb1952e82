package e2e_test

import (
	"encoding/base64"
	"os"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/yaml"
)

// TestTheNotesOnTalosAreAccepted checks the notes without Talos: an API server accepts the static Pod, the
// provider its flags, and the API server's code the EncryptionConfiguration.
func TestTheNotesOnTalosAreAccepted(t *testing.T) {
	t.Parallel()
	c := startPlain(t)
	text, err := os.ReadFile(deployed(t, "distributions/talos.md"))
	must(t, err)
	_, block, _ := strings.Cut(string(text), "```yaml\n")
	block, _, _ = strings.Cut(block, "```")
	block = strings.ReplaceAll(block, "\n   ", "\n")[len("   "):]
	machine, encryption, _ := strings.Cut(block, "\n---\n")
	var configuration struct {
		Machine struct{ Pods []corev1.Pod }
	}
	must(t, yaml.Unmarshal([]byte(machine), &configuration))
	pod := configuration.Machine.Pods[0]
	manifest, err := yaml.Marshal(pod)
	must(t, err)
	c.mustKubectl(t, string(manifest), append(tries, "-")...)
	flags := slices.DeleteFunc(pod.Spec.Containers[0].Args, func(flag string) bool {
		return strings.HasPrefix(flag, "--vault-address=")
	})
	requireSettings(t, c, append(flags, "--vault-address="+nowhere()), nil)

	var document struct{ Config map[string]any }
	must(t, yaml.Unmarshal([]byte(encryption), &document))
	document.Config["apiVersion"], document.Config["kind"] = "apiserver.config.k8s.io/v1", "EncryptionConfiguration"
	config, err := yaml.Marshal(document.Config)
	must(t, err)
	secretbox := base64.StdEncoding.EncodeToString(make([]byte, 32))
	must(t, c.Nodes[0].Configure(strings.NewReplacer(
		"SECRETBOX", secretbox, "unix://"+socketDirectory+"/vault-kube-kms.sock", c.plugin.Endpoint).Replace(string(config))))
	c.restartAPIServer(t)
	c.api.mustCreate(t, "one")
	if raw := c.stored(t)[0].raw; !strings.HasPrefix(string(raw), "k8s:enc:secretbox:v1:key2:") {
		t.Errorf("in the first stage, a Secret is stored as %.40q", raw)
	}
}
