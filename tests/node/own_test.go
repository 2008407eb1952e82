package node_test

import (
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"vault-kube-kms.test/parts"
	"vault-kube-kms.test/suite"
)

// nodeAddress is the address of the node in its network namespace.
const nodeAddress = "192.0.2.10"

// ownNode gives this process the directories and the address of a new node. The process has its own mount and
// network namespaces. Files that a control plane writes below /etc, /var, /opt and /run are only in dir.
func ownNode(t *testing.T, dir string) {
	t.Helper()
	suite.Must(t, unix.Mount("none", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""))
	// An overlay cannot be the upper layer of another overlay, so the files of containers are beside it.
	containers := filepath.Join(dir, "containerd")
	suite.Must(t, os.MkdirAll(containers, 0o711))
	upper := filepath.Join(dir, "upper")
	suite.Must(t, os.MkdirAll(upper, 0o755))
	suite.Must(t, unix.Mount("none", upper, "tmpfs", 0, "mode=755"))
	for _, name := range []string{"etc", "var", "opt"} {
		over, work := filepath.Join(upper, name), filepath.Join(upper, name+".work")
		for _, folder := range []string{over, work} {
			suite.Must(t, os.MkdirAll(folder, 0o755))
		}
		options := "lowerdir=/" + name + ",upperdir=" + over + ",workdir=" + work
		suite.Must(t, unix.Mount("overlay", "/"+name, "overlay", 0, options))
	}
	suite.Must(t, unix.Mount("none", "/run", "tmpfs", 0, "mode=755"))
	for path, mode := range map[string]os.FileMode{
		"/var/lib/containerd": 0o711, "/var/lib/kubelet": 0o750, "/etc/kubernetes/manifests": 0o755,
		"/etc/tmpfiles.d": 0o755,
	} {
		suite.Must(t, os.MkdirAll(path, mode))
	}
	suite.Must(t, unix.Mount(containers, "/var/lib/containerd", "", unix.MS_BIND, ""))
	suite.Must(t, unix.Mount("none", "/var/lib/kubelet", "tmpfs", 0, "mode=750"))
	// The kubelet shares mounts with its containers.
	suite.Must(t, unix.Mount("none", "/", "", unix.MS_REC|unix.MS_SHARED, ""))
	for _, args := range [][]string{
		{"link", "set", "lo", "up"},
		{"address", "add", nodeAddress + "/32", "dev", "lo"},
		{"route", "add", "default", "dev", "lo"},
	} {
		out, err := parts.Command(append([]string{"ip"}, args...)...).CombinedOutput()
		if err != nil {
			t.Fatalf("ip %v: %v: %s", args, err, out)
		}
	}
}
