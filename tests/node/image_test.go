package node_test

import (
	"bytes"
	"crypto/rand"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"time"

	"k8s.io/apiserver/pkg/storage/value/encrypt/envelope/kmsv2"
	"k8s.io/kms/pkg/service"

	"vault-kube-kms.test/parts"
	"vault-kube-kms.test/suite"
)

// bundle makes a bundle of an image for runc: a read-only root, no capabilities, no new privileges, and the
// directory at /work. It returns the command that runs the bundle as a user.
func (n *node) bundle(image, id string, uid, gid int, dir string, args ...string) []string {
	n.t.Helper()
	bundle := suite.ShortDir(n.t)
	root := filepath.Join(bundle, "rootfs")
	suite.Must(n.t, os.Mkdir(root, 0o755))
	n.run("ctr", "--namespace=k8s.io", "images", "mount", "--rw", image, root)
	n.t.Cleanup(func() { _, _ = n.try("ctr", "--namespace=k8s.io", "images", "unmount", "--rm", root) })
	type object = map[string]any
	namespaces := []object{{"type": "pid"}, {"type": "mount"}, {"type": "ipc"}, {"type": "uts"}}
	config, err := json.Marshal(object{
		"ociVersion": "1.0.2",
		"process": object{
			"user": object{"uid": uid, "gid": gid}, "args": args, "cwd": "/", "env": []string{"PATH=/bin"},
			"noNewPrivileges": true, "capabilities": object{},
		},
		"root": object{"path": "rootfs", "readonly": true},
		"mounts": []object{
			{"destination": "/proc", "type": "proc", "source": "proc"},
			{"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": []string{"nosuid", "mode=755", "size=64k"}},
			{"destination": "/work", "type": "bind", "source": dir, "options": []string{"rbind", "rw"}},
		},
		"linux": object{"namespaces": namespaces, "cgroupsPath": "/k8s.io/" + id},
	})
	suite.Must(n.t, err)
	suite.Must(n.t, os.WriteFile(filepath.Join(bundle, "config.json"), config, 0o600))
	return []string{"runc", "--root=" + filepath.Join(n.dir, "runc"), "run", "--bundle=" + bundle, id}
}

// tryImages runs the image as a random uid with gid 0, as OpenShift does, and calls its socket with the API
// server's own client. It also requires that the image with a shell has the program at the same path.
func (n *node) tryImages() {
	t := n.t
	dir := suite.ShortDir(t)
	key := filepath.Join(dir, "key.json")
	n.run(suite.Needed(t, "PROVIDER"), "local", "init", "--local-key-file="+key)
	const uid = 1_000_650_000
	suite.Must(t, os.Chown(key, uid, 0))
	suite.Must(t, os.Chown(dir, 0, 0))
	suite.Must(t, os.Chmod(dir, 0o770))
	process, err := n.way.Start("any-uid", n.bundle(n.image, "any-uid", uid, 0, dir, "/vault-kube-kms", "--keeper=local",
		"--local-key-file=/work/key.json", "--listen-address=unix:///work/kms.sock", "--health-port=0", "--metrics-port=0"))
	suite.Must(t, err)
	client, err := kmsv2.NewGRPCService(t.Context(), "unix://"+filepath.Join(dir, "kms.sock"), "image", 10*time.Second)
	suite.Must(t, err)
	if !parts.Eventually(parts.StartBound, func() bool {
		answer, err := client.Status(t.Context())
		return err == nil && answer.Healthz == "ok"
	}) {
		t.Fatalf("the image does not serve as uid %d with gid 0: %s", uid, process.Printed())
	}
	seed := make([]byte, 32)
	_, _ = rand.Read(seed)
	sealed, err := client.Encrypt(t.Context(), "image", seed)
	suite.Must(t, err)
	opened, err := client.Decrypt(t.Context(), "image", &service.DecryptRequest{
		Ciphertext: sealed.Ciphertext, KeyID: sealed.KeyID, Annotations: sealed.Annotations,
	})
	if err != nil || !bytes.Equal(opened, seed) {
		t.Errorf("Decrypt: %v", err)
	}
	// runc passes signals on.
	if !process.Stop() {
		t.Error("the container does not end")
	}

	printed := n.run(n.bundle(n.image+"-shell", "shell", 65532, 65532, dir, "/bin/sh", "-ec", "test -x /vault-kube-kms; /vault-kube-kms --version")...)
	if _, version, _ := strings.Cut(n.image, ":"); !strings.HasPrefix(printed, "vault-kube-kms "+version+" ") {
		t.Errorf("the image with a shell prints %q", printed)
	}
	if out, err := n.try(n.bundle(n.image, "no-shell", 65532, 65532, dir, "/bin/sh")...); err == nil {
		t.Errorf("the plain image has a shell: %s", out)
	}
}
