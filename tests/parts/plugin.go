package parts

import (
	"fmt"
	"net"
	"strings"
)

// Plugin is the program under test, on a file socket.
type Plugin struct {
	*Process
	// Endpoint is what an EncryptionConfiguration calls its socket.
	Endpoint string

	metrics string
	start   func() (*Process, error)
}

// StartPlugin starts a plugin and waits until its socket accepts. It may have more flags than
// where it listens.
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

// Restart starts it again, as it was, after it was stopped or killed.
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

// Metrics are those of the moment.
func (p *Plugin) Metrics() (Metrics, error) { return Scrape(p.metrics) }

// MetricsAddress is the host and port of its metrics.
func (p *Plugin) MetricsAddress() string {
	return strings.TrimSuffix(strings.TrimPrefix(p.metrics, "http://"), "/metrics")
}

// Healthy says whether its Status answers ok.
func (p *Plugin) Healthy() bool {
	metrics, err := p.Metrics()
	healthy, _ := metrics.Sum("vault_kube_kms_healthy")
	return err == nil && healthy == 1
}

// Calls is how often a method of it was called.
func (p *Plugin) Calls(method string) (int, error) {
	metrics, err := p.Metrics()
	calls, _ := metrics.Sum("rpc_server_duration_milliseconds_count", fmt.Sprintf("rpc_method=%q", method))
	return int(calls), err
}
