package node_test

import (
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"vault-kube-kms.test/parts"
	"vault-kube-kms.test/suite"
)

const (
	manifests  = "/etc/kubernetes/manifests"
	runtime    = "/run/containerd/containerd.sock"
	kubeletURL = "https://127.0.0.1:10250"
	// changeBound limits the time in which a Pod starts, ends or becomes ready.
	changeBound = 2 * time.Minute
)

// containerdConfig makes containerd work without AppArmor and without higher limits, which this machine forbids.
const containerdConfig = `version = 2
root = "/var/lib/containerd"
state = "/run/containerd"
oom_score = 0
[grpc]
  address = "` + runtime + `"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "localhost/pause:1"
  restrict_oom_score_adj = true
  disable_apparmor = true
  disable_hugetlb_controller = true
  enable_selinux = false
[plugins."io.containerd.grpc.v1.cri".containerd]
  snapshotter = "overlayfs"
[plugins."io.containerd.grpc.v1.cri".cni]
  bin_dir = "/opt/cni/bin"
  conf_dir = "/etc/cni/net.d"
`

// kubeletConfig configures a kubelet without an API server. It runs static Pods.
const kubeletConfig = `apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
staticPodPath: ` + manifests + `
containerRuntimeEndpoint: unix://` + runtime + `
address: 127.0.0.1
authentication: {anonymous: {enabled: true}, webhook: {enabled: false}}
authorization: {mode: AlwaysAllow}
failCgroupV1: false
cgroupDriver: cgroupfs
cgroupsPerQOS: false
enforceNodeAllocatable: []
fileCheckFrequency: 1s
resolvConf: ""
evictionHard: {memory.available: 1Mi, nodefs.available: "0%", imagefs.available: "0%", nodefs.inodesFree: "0%"}
imageGCHighThresholdPercent: 100
failSwapOn: false
localStorageCapacityIsolation: false
`

// machine is a node: containerd and a kubelet.
type machine struct {
	t                   *testing.T
	way                 parts.Way
	dir                 string
	containerd, kubelet *parts.Process
	http                http.Client
}

// newMachine starts containerd and imports all images of IMAGES.
func newMachine(t *testing.T, dir string) *machine {
	t.Helper()
	m := &machine{t: t, dir: dir, way: parts.Way{Logs: dir}}
	m.http = http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{
		TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, //nolint:gosec // the kubelet's own certificate
	}}
	config := filepath.Join(dir, "containerd.toml")
	suite.Must(t, os.WriteFile(config, []byte(containerdConfig), 0o600))
	suite.Must(t, os.WriteFile(filepath.Join(dir, "kubelet.yaml"), []byte(kubeletConfig), 0o600))
	process, err := m.way.Start("containerd", []string{"containerd", "--config", config})
	suite.Must(t, err)
	m.containerd = process
	t.Cleanup(m.end)
	suite.Must(t, process.Until(func() error { _, err := m.try("ctr", "version"); return err }))
	archives, err := filepath.Glob(filepath.Join(suite.Needed(t, "IMAGES"), "*.tar"))
	suite.Must(t, err)
	for _, archive := range archives {
		m.run("ctr", "--namespace=k8s.io", "images", "import", archive)
	}
	return m
}

// until waits until the condition holds. It fails after changeBound, or when no kubelet runs.
func (m *machine) until(holds func() bool) bool {
	held := false
	parts.EventuallyEvery(200*time.Millisecond, changeBound, func() bool {
		held = holds()
		return held || m.kubelet == nil || !m.kubelet.Alive()
	})
	return held
}

func (m *machine) try(args ...string) (string, error) {
	out, err := parts.Command(args...).CombinedOutput()
	if err != nil {
		err = fmt.Errorf("%s: %w: %s", strings.Join(args, " "), err, parts.Tail(string(out)))
	}
	return string(out), err
}

func (m *machine) run(args ...string) string {
	m.t.Helper()
	out, err := m.try(args...)
	suite.Must(m.t, err)
	return out
}

// startKubelet starts the kubelet, which starts the Pods of the manifests.
func (m *machine) startKubelet() {
	m.t.Helper()
	process, err := m.way.Start("kubelet", []string{
		filepath.Join(suite.Needed(m.t, "NODE"), "kubelet"), "--config=" + filepath.Join(m.dir, "kubelet.yaml"),
		"--hostname-override=node", "--root-dir=/var/lib/kubelet", "--cert-dir=/var/lib/kubelet/pki",
		"--node-ip=" + nodeAddress,
	})
	suite.Must(m.t, err)
	m.kubelet = process
}

// end ends the kubelet, all containers and containerd.
func (m *machine) end() {
	if m.kubelet != nil && m.kubelet.Alive() {
		m.kubelet.Stop()
	}
	for _, container := range m.containers() {
		_, _ = m.try("ctr", "--namespace=k8s.io", "task", "kill", "--all", "--signal=SIGKILL", container)
		_, _ = m.try("ctr", "--namespace=k8s.io", "task", "delete", "--force", container)
		_, _ = m.try("ctr", "--namespace=k8s.io", "container", "delete", container)
	}
	m.containerd.Stop()
	removeCgroups()
	if m.t.Failed() {
		for _, process := range []*parts.Process{m.kubelet, m.containerd} {
			if process != nil {
				m.t.Logf("%s", parts.Tail(process.Printed()))
			}
		}
		logs, _ := filepath.Glob("/var/log/pods/*/*/*.log")
		for _, log := range logs {
			text, _ := os.ReadFile(log)
			m.t.Logf("%s:\n%s", log, parts.Tail(string(text)))
		}
	}
}

// removeCgroups removes the empty groups that containers leave: the groups of containerd's namespace, and those
// of Pods. It keeps a group that is in use.
func removeCgroups() {
	for _, pattern := range []string{"/sys/fs/cgroup/*/k8s.io", "/sys/fs/cgroup/k8s.io"} {
		roots, _ := filepath.Glob(pattern)
		for _, root := range roots {
			_ = parts.RemoveCgroup(root)
		}
	}
}

func (m *machine) containers() []string {
	out, _ := m.try("ctr", "--namespace=k8s.io", "containers", "list", "--quiet")
	return strings.Fields(out)
}

// pod has what the kubelet reports about a Pod.
type pod struct {
	Metadata struct{ Name string }
	Status   struct {
		Phase             string
		ContainerStatuses []struct {
			ContainerID  string
			Image        string
			Ready        bool
			RestartCount int
			State        struct{ Running *struct{ StartedAt string } }
		}
	}
}

// pod returns the Pod whose name begins with the prefix, or nil.
func (m *machine) pod(name string) *pod {
	response, err := m.http.Get(kubeletURL + "/pods")
	if err != nil {
		return nil
	}
	defer response.Body.Close()
	var list struct{ Items []pod }
	if json.NewDecoder(response.Body).Decode(&list) != nil {
		return nil
	}
	for _, found := range list.Items {
		if strings.HasPrefix(found.Metadata.Name, name) {
			return &found
		}
	}
	return nil
}

// running returns the id of the Pod's running container, and the number of its restarts.
func (m *machine) running(name string) (id string, restarts int, ready bool) {
	p := m.pod(name)
	if p == nil || len(p.Status.ContainerStatuses) != 1 || p.Status.ContainerStatuses[0].State.Running == nil {
		return "", 0, false
	}
	status := p.Status.ContainerStatuses[0]
	return strings.TrimPrefix(status.ContainerID, "containerd://"), status.RestartCount, status.Ready
}

// untilReady waits until the Pod is ready in another container than the former one.
func (m *machine) untilReady(name, former string) string {
	m.t.Helper()
	var id string
	if !m.until(func() bool {
		var ready bool
		id, _, ready = m.running(name)
		return ready && id != former
	}) {
		m.t.Fatalf("the Pod %s is not ready: %+v", name, m.pod(name))
	}
	return id
}

// pid returns the process id of a container.
func (m *machine) pid(container string) string {
	m.t.Helper()
	for _, line := range strings.Split(m.run("ctr", "--namespace=k8s.io", "tasks", "list"), "\n") {
		if fields := strings.Fields(line); len(fields) == 3 && fields[0] == container {
			return fields[1]
		}
	}
	m.t.Fatalf("the container %s has no process", container)
	return ""
}

// kill ends the container's process by SIGKILL, as the kernel does when memory is short.
func (m *machine) kill(container string) {
	m.t.Helper()
	m.run("kill", "-9", m.pid(container))
}

// write replaces a manifest in one step, as the documents tell operators to.
func (m *machine) write(name, text string) {
	m.t.Helper()
	draft := filepath.Join("/etc/kubernetes", name+".draft")
	suite.Must(m.t, os.WriteFile(draft, []byte(text), 0o600))
	suite.Must(m.t, os.Rename(draft, filepath.Join(manifests, name)))
}

// get returns the text of a page, or an empty text when the server does not answer.
func (m *machine) get(url string) string {
	response, err := m.http.Get(url)
	if err != nil {
		return ""
	}
	defer response.Body.Close()
	text, _ := io.ReadAll(response.Body)
	return string(text)
}
