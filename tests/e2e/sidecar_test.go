package e2e_test

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"

	"vault-kube-kms.test/parts"
)

func TestTheNetworkPolicyIsAccepted(t *testing.T) {
	t.Parallel()
	c := startPlain(t)
	c.mustKubectl(t, "", append(tries, deployed(t, "kubernetes/network-policy.yaml"))...)
}

// TestTheSidecarComponent applies the component to a Deployment and to a StatefulSet. It expects that an API
// server accepts the result, and that the provider accepts the settings.
func TestTheSidecarComponent(t *testing.T) {
	t.Parallel()
	c := startPlain(t)
	for _, kind := range []string{"Deployment", "StatefulSet"} {
		dir := shortDir(t)
		must(t, os.CopyFS(filepath.Join(dir, "sidecar"), os.DirFS(deployed(t, "kubernetes/sidecar"))))
		write := func(file, text string) {
			must(t, os.WriteFile(filepath.Join(dir, file), []byte(text), 0o600))
		}
		write("kustomization.yaml", "resources: [apiserver.yaml]\ncomponents: [sidecar]\n"+
			"images: [{name: vault-kube-kms, newName: registry.example.org/vault-kube-kms, newTag: other}]\n")
		write("apiserver.yaml", hosted(kind))
		rendered := c.mustKubectl(t, "", "kustomize", dir)
		c.mustKubectl(t, rendered, append(tries, "-")...)
		requireSidecar(t, c, rendered)
	}
}

// hosted is a kube-apiserver that runs as a workload in another cluster.
func hosted(kind string) string {
	return fmt.Sprintf(`apiVersion: apps/v1
kind: %s
metadata: {name: tenant-1, namespace: default, labels: {vault-kube-kms: sidecar}}
spec:
  selector: {matchLabels: {app: tenant-1}}
  template:
    metadata: {labels: {app: tenant-1, vault-kube-kms: sidecar}}
    spec:
      containers:
        - {name: konnectivity-server, image: one}
        - name: kube-apiserver
          image: one
          volumeMounts: [{name: certificates, mountPath: /etc/kubernetes/pki}]
      volumes: [{name: certificates, emptyDir: {}}]
`, kind)
}

// requireSidecar requires that the provider is beside the API server, shares the socket's directory with it, and
// accepts its settings.
func requireSidecar(t *testing.T, c *controlPlane, rendered string) {
	t.Helper()
	var settings struct {
		Metadata metadata
		Data     map[string]string
	}
	var workload struct {
		Spec struct{ Template corev1.PodTemplateSpec }
	}
	out := c.mustKubectl(t, rendered, append(tries, "-", "-o", "json")...)
	objects := json.NewDecoder(strings.NewReader(out))
	must(t, objects.Decode(&settings))
	must(t, objects.Decode(&workload))
	pod := workload.Spec.Template.Spec
	provider := pod.InitContainers[0]
	if provider.Image != "registry.example.org/vault-kube-kms:other" || *provider.RestartPolicy != corev1.ContainerRestartPolicyAlways {
		t.Errorf("the provider is started as %v", provider)
	}
	if name := provider.EnvFrom[0].ConfigMapRef.Name; name != settings.Metadata.Name {
		t.Errorf("the settings are in %s and not in %s", settings.Metadata.Name, name)
	}
	server := pod.Containers[slices.IndexFunc(pod.Containers, func(c corev1.Container) bool { return c.Name == "kube-apiserver" })]
	shared := corev1.VolumeMount{Name: "vault-kube-kms-socket", MountPath: socketDirectory}
	if !slices.Contains(server.VolumeMounts, shared) || !slices.Contains(provider.VolumeMounts, shared) {
		t.Errorf("%v is not mounted in both %v and %v", shared, server.VolumeMounts, provider.VolumeMounts)
	}
	if len(pod.Containers) != 2 || len(server.VolumeMounts) != 3 || len(pod.Volumes) != 4 {
		t.Errorf("the API server's own entry is lost or doubled: %v", pod)
	}

	var variables []string
	for name, value := range settings.Data {
		variables = append(variables, name+"="+value)
	}
	for _, variable := range provider.Env {
		variables = append(variables, variable.Name+"="+variable.Value)
	}
	// The provider would connect to the keeper of the example, so another address replaces it.
	variables = append(variables, "VAULT_KUBE_KMS_VAULT_ADDRESS="+nowhere())
	requireSettings(t, c, nil, variables)
}

// nowhere is an address without a keeper.
func nowhere() string { return "https://" + parts.FreeAddress() }

// requireSettings requires that the provider accepts these flags and variables.
func requireSettings(t *testing.T, c *controlPlane, flags, variables []string) {
	t.Helper()
	check := parts.Command(append([]string{c.Programs.Plugin, "check"}, flags...)...)
	check.Env = append(check.Env, variables...)
	checked, _ := check.CombinedOutput()
	if text := string(checked); !strings.Contains(text, "PASS  configuration") || strings.Contains(text, "FAIL  configuration") {
		t.Errorf("the provider does not take its settings: %s", text)
	}
}
