// Package node_test boots a control-plane node: a real kubelet with containerd runs etcd, kube-apiserver and the
// provider's image as static Pods. The manifests are the files of deploy/ and those that kubeadm makes from them.
package node_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"vault-kube-kms.test/parts"
	"vault-kube-kms.test/suite"
)

func TestMain(m *testing.M) { suite.Main(m, 1) }

const (
	provider  = "vault-kube-kms"
	apiServer = "kube-apiserver"
)

// node is a machine with the files and programs of a control plane.
type node struct {
	*machine
	bao    *parts.OpenBao
	tenant *parts.Tenant
	// podOfProvider is the manifest of deploy/ with the marked lines changed. image is the image that it names.
	podOfProvider, image                          string
	podOfEtcd, podOfAPIServer, podByClusterConfig string
}

// prepare starts a keeper and makes all files of the node. It does not start a Pod.
func prepare(t *testing.T, dir string) *node {
	t.Helper()
	ownNode(t, dir)
	n := &node{machine: newMachine(t, dir)}
	bao, err := parts.StartOpenBao(n.way, suite.Needed(t, "BAO"), suite.ShortDir(t))
	suite.Must(t, err)
	t.Cleanup(bao.Kill)
	n.bao = bao
	n.tenant, err = bao.NewTenant(parts.RandomName(), suite.ShortDir(t), 60, parts.UseOfKey...)
	suite.Must(t, err)
	suite.Must(t, n.tenant.MakeKey())
	n.settle()
	n.kubeadm()
	manifest := n.deploy("static-pod/vault-kube-kms.yaml")
	manifest = strings.Replace(manifest, "https://vault.example.com:8200", "https://"+bao.Address, 1)
	manifest = strings.Replace(manifest, "transit/keys/kubernetes", n.tenant.Mount+"/keys/"+n.tenant.Key, 1)
	n.image = regexp.MustCompile(`localhost/vault-kube-kms:\S+`).FindString(manifest)
	// The default of one minute is too long for a test.
	n.podOfProvider = strings.Replace(manifest, "        - --health-address", "        - --rotation-delay=5s\n        - --health-address", 1)
	return n
}

// deploy returns the text of a file of deploy/.
func (n *node) deploy(name string) string {
	n.t.Helper()
	text, err := os.ReadFile(filepath.Join("../../deploy", name))
	suite.Must(n.t, err)
	return string(text)
}

// settle types the commands of docs/install.md for a node.
func (n *node) settle() {
	n.t.Helper()
	dir := suite.ShortDir(n.t)
	deploy, err := filepath.Abs("../../deploy")
	suite.Must(n.t, err)
	suite.Must(n.t, os.Symlink(deploy, filepath.Join(dir, "deploy")))
	secretID, err := os.ReadFile(n.tenant.SecretIDFile)
	suite.Must(n.t, err)
	ca, err := os.ReadFile(n.bao.CAFile)
	suite.Must(n.t, err)
	for name, text := range map[string][]byte{"secret-id": secretID, "role-id": []byte(n.tenant.RoleID), "ca.pem": ca} {
		suite.Must(n.t, os.WriteFile(filepath.Join(dir, name), text, 0o600))
	}
	guide, err := os.ReadFile("../../docs/install.md")
	suite.Must(n.t, err)
	_, block, _ := strings.Cut(string(guide), "```sh\n")
	block, _, found := strings.Cut(block, "```")
	if !found {
		n.t.Fatal("docs/install.md has no block of commands for a node")
	}
	n.run("sh", "-ec", "cd "+dir+"\n"+block)
}

// kubeadm makes the certificates, the manifest of etcd and the manifest of the API server. It makes the latter in
// both ways of deploy/kubeadm: with our patch, and with our part of the ClusterConfiguration.
func (n *node) kubeadm() {
	n.t.Helper()
	kubeadm := filepath.Join(suite.Needed(n.t, "NODE"), "kubeadm")
	patches, err := filepath.Abs("../../deploy/kubeadm/patches")
	suite.Must(n.t, err)
	release := strings.Fields(n.run(kubeadm, "version", "--output=short"))[0]
	phase := func(patches, cluster string, phases ...string) {
		config := filepath.Join(n.dir, "kubeadm.yaml")
		suite.Must(n.t, os.WriteFile(config, []byte(fmt.Sprintf(`apiVersion: kubeadm.k8s.io/v1beta4
kind: InitConfiguration
localAPIEndpoint: {advertiseAddress: %s}
nodeRegistration: {name: node, criSocket: unix://%s}
%s---
%s
kubernetesVersion: %s
imageRepository: localhost
etcd: {local: {imageTag: %q}}
`, nodeAddress, runtime, patches, cluster, release, etcdTag())), 0o600))
		for _, phase := range phases {
			n.run(append([]string{kubeadm, "init", "phase"}, append(strings.Fields(phase), "--config="+config)...)...)
		}
	}
	const plain = "apiVersion: kubeadm.k8s.io/v1beta4\nkind: ClusterConfiguration"
	phase("patches: {directory: "+patches+"}\n", plain,
		"certs all", "kubeconfig super-admin", "etcd local", "control-plane apiserver")
	n.podOfEtcd, n.podOfAPIServer = n.take("etcd.yaml"), n.take("kube-apiserver.yaml")
	phase("", n.deploy("kubeadm/cluster-config.yaml"), "control-plane apiserver")
	n.podByClusterConfig = n.take("kube-apiserver.yaml")
}

// take moves a manifest out of the directory of the kubelet.
func (n *node) take(name string) string {
	n.t.Helper()
	path := filepath.Join(manifests, name)
	text, err := os.ReadFile(path)
	suite.Must(n.t, err)
	suite.Must(n.t, os.Remove(path))
	return string(text)
}

// etcdTag is the tag of the image of etcd, which is the version of its folder.
func etcdTag() string { return os.Getenv("ETCD_VERSION") }

// kubectl runs kubectl as the administrator that kubeadm makes before any role exists.
func (n *node) kubectl(args ...string) (string, error) {
	return n.try(append([]string{filepath.Join(suite.Needed(n.t, "KUBERNETES"), "kubectl"),
		"--kubeconfig=/etc/kubernetes/super-admin.conf", "--request-timeout=10s", "--cache-dir=" + filepath.Join(n.dir, "kubectl")}, args...)...)
}

// untilServes waits until the API server is ready, its KMS provider included.
func (n *node) untilServes() {
	n.t.Helper()
	var last error
	if !n.until(func() bool {
		_, last = n.kubectl("get", "--raw=/readyz?verbose")
		return last == nil
	}) {
		n.t.Fatalf("the API server is not ready: %v", last)
	}
}

// store writes a Secret and reads it again.
func (n *node) store(name string) {
	n.t.Helper()
	var last error
	if !n.until(func() bool {
		_, last = n.kubectl("create", "secret", "generic", name, "--from-literal=value="+name)
		return last == nil || strings.Contains(last.Error(), "AlreadyExists")
	}) {
		n.t.Fatalf("the Secret %s cannot be written: %v", name, last)
	}
	n.read(name)
}

// read reads a stored Secret.
func (n *node) read(name string) {
	n.t.Helper()
	var got string
	var err error
	if !n.until(func() bool {
		got, err = n.kubectl("get", "secret", name, "--output=go-template={{.data.value | base64decode}}")
		return err == nil
	}) || got != name {
		n.t.Fatalf("the Secret %s is read as %q: %v", name, got, err)
	}
}

// stored returns the bytes of a Secret in etcd.
func (n *node) stored(name string) string {
	n.t.Helper()
	return n.run(filepath.Join(suite.Needed(n.t, "ETCD"), "etcdctl"), "--endpoints=https://127.0.0.1:2379",
		"--cacert=/etc/kubernetes/pki/etcd/ca.crt", "--cert=/etc/kubernetes/pki/etcd/healthcheck-client.crt",
		"--key=/etc/kubernetes/pki/etcd/healthcheck-client.key",
		"get", "--print-value-only", "/registry/secrets/default/"+name)
}

// requireEncrypted requires that the Secret in etcd is encrypted by this version of the key.
func (n *node) requireEncrypted(name, version string) {
	n.t.Helper()
	stored := n.stored(name)
	if !strings.HasPrefix(stored, "k8s:enc:kms:v2:vault-kube-kms:") || !strings.Contains(stored, version+".") {
		n.t.Fatalf("etcd holds %q", stored)
	}
}

// TestNode boots a node in each order of its parts. The node recovers from killed parts, a restarted kubelet, a
// stopped keeper, a rotation and an upgrade.
func TestNode(t *testing.T) {
	// The process outside of the namespaces makes the directory. It removes the directory after the mounts below
	// it are gone.
	const dirVariable = "NODE_DIR"
	if os.Getenv(dirVariable) == "" {
		t.Setenv(dirVariable, suite.ShortDir(t))
	}
	if !suite.Apart(t, unix.CLONE_NEWNET|unix.CLONE_NEWNS) {
		return
	}
	n := prepare(t, os.Getenv(dirVariable))
	place := os.Getenv("NODE_STAY")
	if place == "" {
		n.tryImages()
	}

	t.Log("the provider comes last")
	n.write("etcd.yaml", n.podOfEtcd)
	n.write("kube-apiserver.yaml", n.podOfAPIServer)
	n.startKubelet()
	n.untilRuns("etcd")
	n.write(provider+".yaml", n.podOfProvider)
	p := n.untilReady(provider, "")
	n.untilServes()
	n.store("first")
	n.requireEncrypted("first", "v1")
	n.requireRestricted(p)
	if place != "" {
		n.stay(place)
		return
	}

	t.Log("each container is killed")
	for _, name := range []string{provider, apiServer, "etcd"} {
		id, _, _ := n.running(name)
		n.kill(id)
		n.untilReady(name, id)
		n.untilServes()
		n.read("first")
		n.store("after-" + name)
	}

	t.Log("the kubelet is restarted")
	before, _, _ := n.running(provider)
	n.kubelet.Stop()
	n.startKubelet()
	if after := n.untilReady(provider, ""); after != before {
		t.Errorf("the provider was replaced: %s, %s", before, after)
	}

	t.Log("the keeper is down: the provider is not restarted, and what was written is read")
	n.bao.Kill()
	n.requireStays(before)
	n.read("first")
	suite.Must(t, n.bao.Restart())

	t.Log("the key is rotated")
	suite.Must(t, n.tenant.Rotate())
	n.untilWritesWith("v2")

	t.Log("the image is upgraded by its manifest, under constant writes")
	n.run("ctr", "--namespace=k8s.io", "images", "tag", n.image, "localhost/vault-kube-kms:next")
	n.whileWriting(func() {
		n.write(provider+".yaml", strings.Replace(n.podOfProvider, n.image, "localhost/vault-kube-kms:next", 1))
		n.untilReady(provider, before)
	})

	t.Log("a full stop, and a start in which the provider comes first while the keeper is down")
	n.bao.Kill()
	n.stopAll()
	n.take("kube-apiserver.yaml")
	n.startKubelet()
	n.untilReady(provider, "")
	n.write("kube-apiserver.yaml", n.podByClusterConfig)
	n.untilRuns(apiServer)
	suite.Must(t, n.bao.Restart())
	n.untilServes()
	n.read("first")
	n.store("at-the-end")
}

// untilRuns waits until the container of the Pod runs.
func (n *node) untilRuns(name string) {
	n.t.Helper()
	if !n.until(func() bool { id, _, _ := n.running(name); return id != "" }) {
		n.t.Fatalf("the Pod %s does not run: %+v", name, n.pod(name))
	}
}

// requireRestricted requires that the process of a container has no user, no capability and no writable disk of
// the node.
func (n *node) requireRestricted(container string) {
	n.t.Helper()
	status, err := os.ReadFile("/proc/" + n.pid(container) + "/status")
	suite.Must(n.t, err)
	for _, line := range []string{"Uid:\t65532\t", "Gid:\t65532\t", "CapEff:\t0000000000000000", "CapBnd:\t0000000000000000", "NoNewPrivs:\t1", "Seccomp:\t2"} {
		if !strings.Contains(string(status), line) {
			n.t.Errorf("the provider's process lacks %q:\n%s", line, status)
		}
	}
	mounts, err := os.ReadFile("/proc/" + n.pid(container) + "/mounts")
	suite.Must(n.t, err)
	root, _, _ := strings.Cut(string(mounts), "\n")
	if fields := strings.Fields(root); len(fields) < 4 || !strings.HasPrefix(fields[3], "ro") {
		n.t.Errorf("the root of the provider's file system can be written to: %s", root)
	}
}

// requireStays requires that three liveness probes succeed after the provider has reported an outage of its
// keeper, and that the container is still the same and ready.
func (n *node) requireStays(container string) {
	n.t.Helper()
	told := func() bool {
		return strings.Contains(n.get("http://127.0.0.1:9090/statusz?format=json"), "keeper-unreachable")
	}
	if !n.until(told) {
		n.t.Fatal("the provider does not report the outage")
	}
	before, _ := n.probes()
	if !n.until(func() bool { successful, failed := n.probes(); return failed > 0 || successful >= before+3 }) {
		n.t.Fatal("the kubelet does not probe")
	}
	if _, failed := n.probes(); failed > 0 {
		n.t.Errorf("%d liveness probes failed because the keeper is down", failed)
	}
	if id, _, ready := n.running(provider); id != container || !ready {
		n.t.Errorf("the provider's container was %s and is %s, ready: %t", container, id, ready)
	}
}

// probes returns the numbers of successful and failed liveness probes of the provider's container.
func (n *node) probes() (successful, failed int) {
	for _, line := range strings.Split(n.get(kubeletURL+"/metrics/probes"), "\n") {
		labels, value, found := strings.Cut(line, "} ")
		if !found || !strings.HasPrefix(labels, "prober_probe_total{") ||
			!strings.Contains(labels, `container="vault-kube-kms"`) || !strings.Contains(labels, `probe_type="Liveness"`) {
			continue
		}
		var count int
		_, _ = fmt.Sscan(value, &count)
		if strings.Contains(labels, `result="successful"`) {
			successful += count
		} else {
			failed += count
		}
	}
	return successful, failed
}

// untilWritesWith waits until new Secrets are encrypted with this version of the key.
func (n *node) untilWritesWith(version string) {
	n.t.Helper()
	var last string
	number := 0
	if !parts.EventuallyEvery(time.Second, changeBound, func() bool {
		number++
		name := fmt.Sprintf("rotated-%d", number)
		n.store(name)
		last = n.stored(name)
		return strings.Contains(last, version+".")
	}) {
		n.t.Fatalf("etcd holds %q", last)
	}
}

// whileWriting runs an action while Secrets are written. Each write must succeed.
func (n *node) whileWriting(do func()) {
	n.t.Helper()
	ctx, stop := context.WithCancel(n.t.Context())
	var written atomic.Int64
	failed := make(chan error, 1)
	go func() {
		defer close(failed)
		for ctx.Err() == nil {
			name := fmt.Sprintf("constant-%d", written.Load())
			if _, err := n.kubectl("create", "secret", "generic", name, "--from-literal=value="+name); err != nil {
				failed <- err
				return
			}
			written.Add(1)
		}
	}()
	do()
	stop()
	if err := <-failed; err != nil {
		n.t.Errorf("a write was lost: %v", err)
	}
	if written.Load() == 0 {
		n.t.Error("no Secret was written in this time")
	}
	for number := range written.Load() {
		n.read(fmt.Sprintf("constant-%d", number))
	}
	n.t.Logf("%d Secrets were written in this time, and are read", written.Load())
}

// stopAll ends the kubelet and every container, as a shutdown of the node does.
func (n *node) stopAll() {
	n.t.Helper()
	n.kubelet.Stop()
	for _, container := range n.containers() {
		_, _ = n.try("ctr", "--namespace=k8s.io", "task", "kill", "--all", "--signal=SIGKILL", container)
	}
}
