package suite

import (
	"os"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"vault-kube-kms.test/parts"
)

// Apart runs the test in its own namespaces (CLONE_NEWNET, CLONE_NEWNS). It reports whether the caller is inside
// of them.
func Apart(t *testing.T, namespaces uintptr) bool {
	t.Helper()
	const variable = "IN_NAMESPACES_OF_ITS_OWN"
	if os.Getenv(variable) != "" {
		return true
	}
	cmd := parts.Command(os.Args[0], "-test.run=^"+t.Name()+"$", "-test.v", "-test.timeout="+bound())
	cmd.Env = append(os.Environ(), variable+"=1")
	cmd.SysProcAttr.Cloneflags = namespaces
	if uid := os.Getuid(); uid != 0 {
		cmd.SysProcAttr.Cloneflags |= syscall.CLONE_NEWUSER
		cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: uid, Size: 1}}
	}
	out, err := cmd.CombinedOutput()
	t.Logf("in namespaces of its own:\n%s", out)
	Must(t, err)
	return false
}

// bound returns the time limit of a test in its namespaces: 5 minutes, or the value of APART_BOUND. 0 means no
// limit.
func bound() string {
	if bound := os.Getenv("APART_BOUND"); bound != "" {
		return bound
	}
	return "5m"
}

// ApartFromNetwork is Apart with a network namespace. All ports are free in it, and the loopback interface is up.
func ApartFromNetwork(t *testing.T) bool {
	t.Helper()
	return ApartFrom(t, unix.CLONE_NEWNET)
}

// ApartFrom is ApartFromNetwork with other namespaces beside that of the network.
func ApartFrom(t *testing.T, namespaces uintptr) bool {
	t.Helper()
	if !Apart(t, namespaces|unix.CLONE_NEWNET) {
		return false
	}
	socket, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM, 0)
	Must(t, err)
	defer unix.Close(socket)
	request, err := unix.NewIfreq("lo")
	Must(t, err)
	request.SetUint16(unix.IFF_UP)
	Must(t, unix.IoctlIfreq(socket, unix.SIOCSIFFLAGS, request))
	return true
}
