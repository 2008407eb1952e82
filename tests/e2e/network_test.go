package e2e_test

import (
	"os"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"vault-kube-kms.test/parts"
)

// apart runs the test in a network namespace of its own, where all ports are free, and says
// whether this is there.
func apart(t *testing.T) bool {
	t.Helper()
	const variable = "IN_A_NETWORK_OF_ITS_OWN"
	if os.Getenv(variable) != "" {
		bringLoopbackUp(t)
		return true
	}
	cmd := parts.Command(os.Args[0], "-test.run=^"+t.Name()+"$", "-test.v", "-test.timeout=5m")
	cmd.Env = append(os.Environ(), variable+"=1")
	cmd.SysProcAttr.Cloneflags = syscall.CLONE_NEWNET
	if uid := os.Getuid(); uid != 0 {
		cmd.SysProcAttr.Cloneflags |= syscall.CLONE_NEWUSER
		cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: uid, Size: 1}}
	}
	out, err := cmd.CombinedOutput()
	t.Logf("in a network of its own:\n%s", out)
	must(t, err)
	return false
}

func bringLoopbackUp(t *testing.T) {
	t.Helper()
	socket, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM, 0)
	must(t, err)
	defer unix.Close(socket)
	request, err := unix.NewIfreq("lo")
	must(t, err)
	request.SetUint16(unix.IFF_UP)
	must(t, unix.IoctlIfreq(socket, unix.SIOCSIFFLAGS, request))
}
