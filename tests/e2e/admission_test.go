package e2e_test

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"vault-kube-kms.test/cluster"
	"vault-kube-kms.test/parts"
)

// kubectl returns the output of kubectl with this standard input.
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

// mustKubectl is kubectl for a command that must succeed.
func (c *controlPlane) mustKubectl(t *testing.T, input string, args ...string) string {
	t.Helper()
	out, err := c.kubectl(input, args...)
	must(t, err)
	return out
}

// startPlain starts a control plane with kubectl and the embedded keeper.
func startPlain(t *testing.T) *controlPlane {
	t.Helper()
	c := start(t, func(s *cluster.Settings) { s.Keeper = cluster.Local })
	must(t, c.WriteEnvironment())
	return c
}

// tries has the flags of a dry run at the server with full validation.
var tries = []string{"create", "--dry-run=server", "--validate=strict", "-f"}

// mounting returns a Pod with one volume.
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

// keeping returns a PersistentVolume with this source.
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

func TestOnlyStaticPodsMayMountTheDirectoriesOfTheProvider(t *testing.T) {
	t.Parallel()
	c := startPlain(t)
	const policy = "kubernetes/admission-policy.yaml"
	c.mustKubectl(t, "", append(tries, deployed(t, policy))...)
	// The rights of nodes, which a Node authorizer would give, and a namespace with what it needs.
	c.mustKubectl(t, "", "create", "clusterrolebinding", "nodes", "--clusterrole=system:node", "--group=system:nodes")
	c.mustKubectl(t, "", "create", "namespace", "exporters")
	c.mustKubectl(t, "", "label", "namespace", "exporters", "vault-kube-kms/host-mounts=allowed")
	must(t, c.api.UntilOK("/api/v1/namespaces/kube-system"))
	forbidden := mounting("default", "", host(socketDirectory))
	// Without the policy the Pod is allowed, so the refusal below comes from the policy.
	c.mustKubectl(t, forbidden, append(tries, "-")...)
	c.mustKubectl(t, "", "create", "-f", deployed(t, policy))
	if !parts.EventuallyEvery(250*time.Millisecond, converges, func() bool {
		_, err := c.kubectl(forbidden, append(tries, "-")...)
		return err != nil
	}) {
		t.Fatal("the policy does not take effect")
	}

	node := []string{"--as=system:node:node-1", "--as-group=system:nodes"}
	const mirror = `"kubernetes.io/config.mirror": "1"`
	const directory, above = "only static Pods of kube-system may mount it", "vault-kube-kms/host-mounts=allowed"
	text, err := os.ReadFile(deployed(t, "static-pod/vault-kube-kms.yaml"))
	must(t, err)
	ours := string(text)
	// A kubelet adds this annotation.
	asMirrored := strings.NewReplacer("metadata:\n", "metadata:\n  annotations: {"+mirror+"}\n", "spec:\n", "spec:\n  nodeName: node-1\n")
	for _, tried := range []struct {
		name, object string
		// refused is a part of the reason, or empty if the object is allowed.
		refused string
		flags   []string
	}{
		{"the directory", forbidden, directory, nil},
		{"the socket itself", mounting("default", "", host(socketDirectory+"/vault-kube-kms.sock")), directory, nil},
		{"by the older name of /run", mounting("default", "", host("/var"+socketDirectory+"/")), directory, nil},
		{"with doubled slashes and dots", mounting("default", "", host("//run/.//vault-kube-kms/.")), directory, nil},
		{"that of other plugins", mounting("default", "", host("/var/run/kmsplugin")), directory, nil},
		{"that of an instance of the unit", mounting("default", "", host("/run/vault-kube-kms-new")), directory, nil},
		{"the credentials", mounting("default", "", host("/etc/vault-kube-kms")), directory, nil},
		{"in a namespace with host mounts", mounting("exporters", "", host(socketDirectory)), directory, nil},
		{"in kube-system, not static", mounting("kube-system", "", host(socketDirectory)), directory, nil},
		{"by somebody who calls it a mirror Pod", mounting("kube-system", mirror, host(socketDirectory)), directory, nil},
		{"a node's mirror Pod elsewhere", mounting("default", mirror, host(socketDirectory)), directory, node},
		{"a PersistentVolume", keeping(host(socketDirectory)), directory, nil},
		{"a local PersistentVolume", keeping(fmt.Sprintf("local: {path: %q}", socketDirectory)), directory, nil},
		{"the directory above", mounting("default", "", host("/run")), above, nil},
		{"the directory above the credentials", mounting("default", "", host("/etc")), above, nil},
		{"the root", mounting("default", "", host("/")), above, nil},
		{"all processes", mounting("default", "", host("/proc")), above, nil},
		{"by way of a process", mounting("default", "", host("/proc/1/root"+socketDirectory)), above, nil},

		{"our static Pod, not from a file of the node", ours, directory, nil},
		{"our static Pod", asMirrored.Replace(ours), "", node},
		{"another static Pod of kube-system", mounting("kube-system", mirror, host(socketDirectory)), "", node},
		{"the directory above, with the label", mounting("exporters", "", host("/run")), "", nil},
		{"the root, with the label", mounting("exporters", "", host("/")), "", nil},
		{"a directory of a similar name", mounting("default", "", host("/run/kmsplugin-2")), "", nil},
		{"a directory of the kernel's settings", mounting("default", "", host("/proc/sys/net")), "", nil},
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
		t.Errorf("the dry run stored objects: %d", status)
	}
}
