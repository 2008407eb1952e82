package node_test

import (
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"

	"vault-kube-kms.test/suite"
)

// stay keeps the node for a person (cargo xtask node up). It writes a file with the commands to type, writes the
// process id to another file, and waits for SIGTERM.
func (n *node) stay(place string) {
	n.t.Helper()
	ended := make(chan os.Signal, 1)
	signal.Notify(ended, syscall.SIGTERM, syscall.SIGINT)
	pid, ready := filepath.Join(place, "pid"), filepath.Join(place, "ready")
	enter := fmt.Sprintf("nsenter --target %d --mount --net", os.Getpid())
	kubernetes, etcd := suite.Needed(n.t, "KUBERNETES"), suite.Needed(n.t, "ETCD")
	suite.Must(n.t, os.WriteFile(pid, []byte(fmt.Sprint(os.Getpid())), 0o600))
	suite.Must(n.t, os.WriteFile(ready+".new", []byte(fmt.Sprintf(`a kubelet runs etcd, kube-apiserver and vault-kube-kms as static Pods; to try it:
  node() { %s "$@"; }
  node %s/kubectl --kubeconfig=/etc/kubernetes/super-admin.conf create secret generic demo --from-literal=a=b
  node %s/etcdctl --cacert=/etc/kubernetes/pki/etcd/ca.crt --cert=/etc/kubernetes/pki/etcd/healthcheck-client.crt \
    --key=/etc/kubernetes/pki/etcd/healthcheck-client.key get /registry/secrets/default/demo
  node curl -s localhost:9090/statusz?format=json
  node sh -c 'ls /etc/kubernetes/manifests /var/log/pods'
logs are in %s
`, enter, kubernetes, etcd, n.dir)), 0o600))
	suite.Must(n.t, os.Rename(ready+".new", ready))
	<-ended
	suite.Must(n.t, os.Remove(ready))
	suite.Must(n.t, os.Remove(pid))
}
