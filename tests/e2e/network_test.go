package e2e_test

import (
	"testing"

	"golang.org/x/sys/unix"

	"vault-kube-kms.test/suite"
)

// apart runs the test in a network namespace of its own, where all ports are free, and says
// whether this is there.
func apart(t *testing.T) bool {
	t.Helper()
	if !suite.Apart(t, unix.CLONE_NEWNET) {
		return false
	}
	bringLoopbackUp(t)
	return true
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
