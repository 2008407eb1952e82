// Mock serves the KMS plugin with which Kubernetes tests its API server, for cargo xtask compare. The plugin encodes
// in base64, and protects nothing.
package main

import (
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"testing"

	mock "k8s.io/apiserver/pkg/storage/value/encrypt/envelope/testing/v2"
)

// process stands for the test that the plugin expects.
type process struct{ testing.TB }

func (process) Cleanup(func()) {}

func (process) Errorf(string, ...any) {}

func (process) Fatalf(format string, args ...any) {
	fmt.Fprintf(os.Stderr, format+"\n", args...)
	os.Exit(1)
}

func main() {
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGTERM, os.Interrupt)
	mock.NewBase64Plugin(process{}, strings.TrimPrefix(os.Getenv("SOCKET"), "unix://"))
	<-stop
}
