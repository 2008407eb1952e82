package apiserver_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"vault-kube-kms.test/parts"
)

// probeTimeout is the kubelet's default time limit of a probe.
const probeTimeout = time.Second

// probed launches a healthy plugin with a health port, and returns a function that probes it once.
func probed(t *testing.T, flags []string) (*plugin, func(path string) (status int, body string, err error)) {
	t.Helper()
	port := parts.FreePort()
	p := start(t, append(flags, fmt.Sprintf("--health-port=%d", port)))
	client := &http.Client{Timeout: probeTimeout, Transport: &http.Transport{DisableKeepAlives: true}}
	return p, func(path string) (int, string, error) {
		response, err := client.Get(fmt.Sprintf("http://127.0.0.1:%d%s", port, path))
		if err != nil {
			return 0, "", err
		}
		defer response.Body.Close()
		body, err := io.ReadAll(response.Body)
		return response.StatusCode, string(body), err
	}
}

// TestProbesWorkWhileIdleConnectionsPourIn expects that probes succeed during a flood of silent connections. A
// failed liveness probe kills the plugin.
func TestProbesWorkWhileIdleConnectionsPourIn(t *testing.T) {
	t.Parallel()
	port := parts.FreePort()
	start(t, append(localFlags(t), fmt.Sprintf("--health-port=%d", port)))
	address := fmt.Sprintf("127.0.0.1:%d", port)
	probe := func() error {
		ctx, cancel := context.WithTimeout(t.Context(), 3*probeTimeout)
		defer cancel()
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+address+"/healthz", nil)
		must(t, err)
		client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
		response, err := client.Do(request)
		if err != nil {
			return err
		}
		return response.Body.Close()
	}
	const rounds, each = 40, 40
	for round := range rounds {
		for range each {
			conn, err := net.Dial("tcp", address)
			if err != nil {
				t.Fatalf("round %d: %v", round, err)
			}
			defer conn.Close()
		}
		if err := probe(); err != nil {
			t.Fatalf("round %d: %v", round, err)
		}
	}
}

// TestASocketThatWasRemovedIsBoundAnew expects that a removed socket file is bound again, and that /readyz succeeds
// afterwards. It may succeed before too: the next check of the file, within a second, binds the socket at once.
func TestASocketThatWasRemovedIsBoundAnew(t *testing.T) {
	t.Parallel()
	p, probe := probed(t, localFlags(t))
	client, _ := p.raw(t)
	requireAnswers(t, "a client of before", client)
	must(t, os.Remove(p.address()))
	if !parts.Eventually(startBound, func() bool { return p.accepts() }) {
		t.Fatal("the socket is not bound again")
	}
	p.requireHealthy(t)
	requireAnswers(t, "a client of before", client)
	if !parts.Eventually(startBound, func() bool {
		status, _, _ := probe("/readyz")
		return status == http.StatusOK
	}) {
		t.Error("it is never ready again")
	}
	if mode := lstat(t, p.address()); mode != os.ModeSocket|0o770 {
		t.Errorf("the new socket has mode %v", mode)
	}
}

func TestASocketThatAnotherProcessReplacedIsNotReadyAndIsKept(t *testing.T) {
	t.Parallel()
	p, probe := probed(t, localFlags(t))
	must(t, os.Remove(p.address()))
	other, err := net.Listen("unix", p.address())
	must(t, err)
	defer other.Close()
	var body string
	if !parts.Eventually(startBound, func() bool {
		var status int
		status, body, _ = probe("/readyz")
		return status == http.StatusInternalServerError
	}) {
		t.Fatalf("/readyz does not fail: %s", body)
	}
	if !strings.Contains(body, "socket") {
		t.Errorf("/readyz does not name the reason: %s", body)
	}
	if status, _, err := probe("/healthz"); status != http.StatusOK {
		t.Errorf("/healthz fails: %d, %v", status, err)
	}
	// The listener ends and its file stays, as after a kill.
	other.(*net.UnixListener).SetUnlinkOnClose(false)
	must(t, other.Close())
	if !parts.Eventually(startBound, func() bool {
		status, _, _ := probe("/readyz")
		return status == http.StatusOK
	}) {
		t.Fatal("it is never ready again")
	}
	p.requireHealthy(t)
}

func TestSIGHUPReadsFilesAnewAndEndsNothing(t *testing.T) {
	t.Parallel()
	tenant := sharedBao(t).tenant(t)
	p := start(t, tenant.Flags())
	for range 3 {
		p.Signal(syscall.SIGHUP)
	}
	if !parts.Eventually(startBound, func() bool { return strings.Contains(p.Stdout.String(), "SIGHUP") || !p.Alive() }) {
		t.Error("the log does not name the signal")
	}
	p.requireHealthy(t)
}

// TestDevNamesTheDirectoryThatItCannotMake expects that the error of `dev` names the directory that it cannot
// make.
func TestDevNamesTheDirectoryThatItCannotMake(t *testing.T) {
	t.Parallel()
	missing := filepath.Join(shortDir(t), "missing")
	cmd := parts.Command(needed(t, "PROVIDER"), "dev")
	cmd.Env = append(cmd.Env, "TMPDIR="+missing)
	out, err := cmd.CombinedOutput()
	if err == nil || !strings.Contains(string(out), missing) || !strings.Contains(string(out), "TMPDIR") {
		t.Errorf("%v: %s", err, out)
	}
}
