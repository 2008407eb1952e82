package e2e_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"vault-kube-kms.test/cluster"
	"vault-kube-kms.test/parts"
)

// kubectl is what kubectl prints, with a text on its standard input.
func (c *controlPlane) kubectl(input string, args ...string) (string, error) {
	cmd := parts.Command(append([]string{filepath.Join(c.Programs.Kubernetes, "kubectl")}, args...)...)
	cmd.Env = append(cmd.Env, "KUBECONFIG="+filepath.Join(c.Dir, "kubeconfig"), "KUBECACHEDIR="+filepath.Join(c.Dir, "kubectl-cache"))
	cmd.Stdin = strings.NewReader(input)
	out, err := cmd.CombinedOutput()
	if err != nil {
		err = fmt.Errorf("kubectl %s: %w: %s", strings.Join(args, " "), err, out)
	}
	return string(out), err
}

// mustKubectl is kubectl where it has to work.
func (c *controlPlane) mustKubectl(t *testing.T, input string, args ...string) string {
	t.Helper()
	out, err := c.kubectl(input, args...)
	must(t, err)
	return out
}

// startPlain is a control plane for tests of what API servers take, with kubectl.
func startPlain(t *testing.T) *controlPlane {
	t.Helper()
	c := start(t, func(s *cluster.Settings) { s.Keeper = cluster.Local })
	must(t, c.WriteEnvironment())
	return c
}

// tries are the flags for a server that checks everything and stores nothing.
var tries = []string{"create", "--dry-run=server", "--validate=strict", "-f"}

// mounting is a Pod with one volume.
func mounting(namespace, annotation, volume string) string {
	return fmt.Sprintf(`apiVersion: v1
kind: Pod
metadata: {name: one, namespace: %s, annotations: {%s}}
spec:
  nodeName: node-1
  containers: [{name: one, image: one}]
  volumes: [{name: one, %s}]
`, namespace, annotation, volume)
}

// keeping is a PersistentVolume with a source.
func keeping(source string) string {
	return fmt.Sprintf(`apiVersion: v1
kind: PersistentVolume
metadata: {name: one}
spec:
  capacity: {storage: 1Gi}
  accessModes: [ReadWriteOnce]
  nodeAffinity: {required: {nodeSelectorTerms: [{matchExpressions: [{key: a, operator: Exists}]}]}}
  %s
`, source)
}

func host(path string) string { return fmt.Sprintf("hostPath: {path: %q}", path) }

func TestOnlyStaticPodsMayMountTheSocket(t *testing.T) {
	t.Parallel()
	c := startPlain(t)
	const policy = "admission-policy.yaml"
	c.mustKubectl(t, "", append(tries, deployed(t, policy))...)
	// The rights of nodes, which a Node authorizer would give, and a namespace with what it needs.
	c.mustKubectl(t, "", "create", "clusterrolebinding", "nodes", "--clusterrole=system:node", "--group=system:nodes")
	c.mustKubectl(t, "", "create", "namespace", "exporters")
	c.mustKubectl(t, "", "label", "namespace", "exporters", "vault-kube-kms/host-mounts=allowed")
	must(t, c.api.UntilOK("/api/v1/namespaces/kube-system"))
	forbidden := mounting("default", "", host(socketDirectory))
	// Without the policy, the Pod is allowed: what refuses it below is the policy.
	c.mustKubectl(t, forbidden, append(tries, "-")...)
	c.mustKubectl(t, "", "create", "-f", deployed(t, policy))
	if !parts.EventuallyEvery(250*time.Millisecond, converges, func() bool {
		_, err := c.kubectl(forbidden, append(tries, "-")...)
		return err != nil
	}) {
		t.Fatal("the policy never is in force")
	}

	node := []string{"--as=system:node:node-1", "--as-group=system:nodes"}
	const mirror = `"kubernetes.io/config.mirror": "1"`
	const directory, above = "only static Pods of kube-system may mount it", "vault-kube-kms/host-mounts=allowed"
	for _, tried := range []struct {
		name, object string
		// refused is a part of the reason; empty where it is allowed.
		refused string
		flags   []string
	}{
		{"the directory", forbidden, directory, nil},
		{"the socket itself", mounting("default", "", host(socketDirectory+"/vault-kube-kms.sock")), directory, nil},
		{"by the older name of /run", mounting("default", "", host("/var"+socketDirectory+"/")), directory, nil},
		{"with doubled slashes and dots", mounting("default", "", host("//run/.//vault-kube-kms/.")), directory, nil},
		{"in a namespace with host mounts", mounting("exporters", "", host(socketDirectory)), directory, nil},
		{"in kube-system, not static", mounting("kube-system", "", host(socketDirectory)), directory, nil},
		{"by somebody who calls it a mirror Pod", mounting("kube-system", mirror, host(socketDirectory)), directory, nil},
		{"a node's mirror Pod elsewhere", mounting("default", mirror, host(socketDirectory)), directory, node},
		{"a PersistentVolume", keeping(host(socketDirectory)), directory, nil},
		{"a local PersistentVolume", keeping(fmt.Sprintf("local: {path: %q}", socketDirectory)), directory, nil},
		{"the directory above", mounting("default", "", host("/run")), above, nil},
		{"the root", mounting("default", "", host("/")), above, nil},
		{"by way of a process", mounting("default", "", host("/proc/1/root"+socketDirectory)), above, nil},

		{"a static Pod of kube-system", mounting("kube-system", mirror, host(socketDirectory)), "", node},
		{"the directory above, with the label", mounting("exporters", "", host("/run")), "", nil},
		{"the root, with the label", mounting("exporters", "", host("/")), "", nil},
		{"a directory of a similar name", mounting("default", "", host(socketDirectory+"-2")), "", nil},
		{"another directory", mounting("default", "", host("/var/log")), "", nil},
		{"no directory of the host", mounting("default", "", "emptyDir: {}"), "", nil},
		{"a PersistentVolume elsewhere", keeping(host("/srv")), "", nil},
		{"a PersistentVolume of a driver", keeping("csi: {driver: d, volumeHandle: h}"), "", nil},
	} {
		out, err := c.kubectl(tried.object, append(append(tries, "-"), tried.flags...)...)
		switch {
		case tried.refused == "" && err != nil:
			t.Errorf("%s is refused: %v", tried.name, err)
		case tried.refused != "" && (err == nil || !strings.Contains(err.Error(), tried.refused)):
			t.Errorf("%s is not refused because %q: %s%v", tried.name, tried.refused, out, err)
		}
	}
	status, _ := c.api.answers("/api/v1/namespaces/default/pods/one")
	if status != http.StatusNotFound {
		t.Errorf("something was stored: %d", status)
	}
}

func TestTheNetworkPolicyIsTaken(t *testing.T) {
	t.Parallel()
	c := startPlain(t)
	c.mustKubectl(t, "", append(tries, deployed(t, "network-policy.yaml"))...)
}

// The sidecar component turns an API server of either kind into one with a provider beside it, as an API
// server takes it, and with settings that the provider takes.
func TestTheSidecarComponent(t *testing.T) {
	t.Parallel()
	c := startPlain(t)
	for _, kind := range []string{"Deployment", "StatefulSet"} {
		dir := shortDir(t)
		must(t, os.CopyFS(filepath.Join(dir, "sidecar"), os.DirFS(deployed(t, "sidecar"))))
		write := func(file, text string) {
			must(t, os.WriteFile(filepath.Join(dir, file), []byte(text), 0o600))
		}
		write("kustomization.yaml", "resources: [apiserver.yaml]\ncomponents: [sidecar]\n"+
			"images: [{name: vault-kube-kms, newName: registry.example.org/vault-kube-kms, newTag: 0.1.0}]\n")
		write("apiserver.yaml", hosted(kind))
		rendered := c.mustKubectl(t, "", "kustomize", dir)
		c.mustKubectl(t, rendered, append(tries, "-")...)
		requireSidecar(t, c, rendered)
	}
}

// hosted is a kube-apiserver that runs as a workload of another cluster.
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

// requireSidecar fails unless the provider stands beside the API server, shares the socket's directory with it,
// and takes the settings that it is given.
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
	if provider.Image != "registry.example.org/vault-kube-kms:0.1.0" || *provider.RestartPolicy != corev1.ContainerRestartPolicyAlways {
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
		t.Errorf("the API server's own is lost or doubled: %v", pod)
	}

	check := parts.Command(c.Programs.Plugin, "check")
	for name, value := range settings.Data {
		check.Env = append(check.Env, name+"="+value)
	}
	for _, variable := range provider.Env {
		check.Env = append(check.Env, variable.Name+"="+variable.Value)
	}
	// Not the keeper of the example: that would be asked.
	check.Env = append(check.Env, "VAULT_KUBE_KMS_VAULT_ADDRESS=https://"+parts.FreeAddress())
	checked, _ := check.CombinedOutput()
	if text := string(checked); !strings.Contains(text, "PASS  configuration") || strings.Contains(text, "FAIL  configuration") {
		t.Errorf("the provider does not take its settings: %s", text)
	}
}
