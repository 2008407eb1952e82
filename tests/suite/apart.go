package suite

import (
	"os"
	"syscall"
	"testing"

	"vault-kube-kms.test/parts"
)

// Apart runs the test in namespaces of its own (CLONE_NEWNET, CLONE_NEWNS), and says whether this
// is there.
func Apart(t *testing.T, namespaces uintptr) bool {
	t.Helper()
	const variable = "IN_NAMESPACES_OF_ITS_OWN"
	if os.Getenv(variable) != "" {
		return true
	}
	cmd := parts.Command(os.Args[0], "-test.run=^"+t.Name()+"$", "-test.v", "-test.timeout=5m")
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
