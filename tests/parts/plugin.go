package parts

import (
	"fmt"
	"net"
	"strings"
)

// Plugin is the program under test, on a file socket.
type Plugin struct {
	*Process
	// Endpoint returns its socket in the form of an EncryptionConfiguration.
	Endpoint string

	metrics string
	start   func() (*Process, error)
}

// StartPlugin starts a plugin with these flags and its socket, and waits until the socket accepts.
func StartPlugin(way Way, name, program, endpoint string, flags ...string) (*Plugin, error) {
	metrics := FreePort()
	args := append([]string{
		program, "--listen-address=" + endpoint, "--health-port=0", fmt.Sprintf("--metrics-port=%d", metrics),
	}, flags...)
	p := &Plugin{
		Endpoint: endpoint,
		metrics:  fmt.Sprintf("http://127.0.0.1:%d/metrics", metrics),
		start:    func() (*Process, error) { return way.Start(name, args) },
	}
	return p, p.Restart()
}

// Restart starts it again with the same flags, after it was stopped or killed.
func (p *Plugin) Restart() error {
	var err error
	if p.Process, err = p.start(); err != nil {
		return err
	}
	err = p.Until(func() error {
		conn, err := net.Dial("unix", strings.TrimPrefix(p.Endpoint, "unix://"))
		if err != nil {
			return err
		}
		return conn.Close()
	})
	if err != nil {
		p.Kill()
		return fmt.Errorf("plugin: %w", err)
	}
	return nil
}

// Metrics returns its present metrics.
func (p *Plugin) Metrics() (Metrics, error) { return Scrape(p.metrics) }

// MetricsAddress returns the host and port of its metrics.
func (p *Plugin) MetricsAddress() string {
	return strings.TrimSuffix(strings.TrimPrefix(p.metrics, "http://"), "/metrics")
}

// Healthy reports whether its Status answers ok.
func (p *Plugin) Healthy() bool {
	metrics, err := p.Metrics()
	healthy, _ := metrics.Sum("vault_kube_kms_healthy")
	return err == nil && healthy == 1
}

// Calls returns the number of calls of a method.
func (p *Plugin) Calls(method string) (int, error) {
	metrics, err := p.Metrics()
	calls, _ := metrics.Sum("rpc_server_duration_milliseconds_count", fmt.Sprintf("rpc_method=%q", method))
	return int(calls), err
}
