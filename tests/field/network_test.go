package field_test

import (
	"crypto/x509"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"vault-kube-kms.test/parts"
	"vault-kube-kms.test/suite"
)

// name is the host name of the fronts in these tests. Only the hosts file of the plugin has it.
const name = "vault.lab.test"

// named are two fronts on the same port of two addresses, and a hosts file that can be changed.
type named struct {
	one, two *front
	hosts    string
	flags    []string
}

const addressOne, addressTwo = "127.0.0.2", "127.0.0.3"

func newNamed(t *testing.T) *named {
	t.Helper()
	n := newTenant(t)
	config, ca := issued(t, func(c *x509.Certificate) { c.IPAddresses, c.DNSNames = nil, []string{name} })
	one, two, port := listeners(t)
	w := &named{
		one:   newFrontAs(t, n.Bao, suite.Front{TLS: config, Listener: one}),
		two:   newFrontAs(t, n.Bao, suite.Front{TLS: config, Listener: two}),
		hosts: filepath.Join(shortDir(t), "hosts"),
	}
	w.flags = append(n.FlagsVia(fmt.Sprintf("%s:%d", name, port)), "--tls-ca-file="+ca)
	return w
}

// listeners are two on the same port of two addresses.
func listeners(t *testing.T) (one, two net.Listener, port int) {
	t.Helper()
	var err error
	for range 100 {
		port = parts.FreePort()
		if one, err = net.Listen("tcp", fmt.Sprintf("%s:%d", addressOne, port)); err != nil {
			continue
		}
		if two, err = net.Listen("tcp", fmt.Sprintf("%s:%d", addressTwo, port)); err == nil {
			return one, two, port
		}
		_ = one.Close()
	}
	t.Fatal(err)
	return nil, nil, 0
}

// resolvesTo writes these addresses for the name, in this order. It writes the file in place and in one step,
// because the file is mounted.
func (w *named) resolvesTo(t *testing.T, addresses ...string) {
	t.Helper()
	var text strings.Builder
	for _, address := range addresses {
		// The resolver looks for an absolute name with its dot.
		fmt.Fprintf(&text, "%s %s %s.\n", address, name, name)
	}
	// A shorter text must not leave the end of a longer one.
	for text.Len() < 200 {
		text.WriteString("\n")
	}
	file, err := os.OpenFile(w.hosts, os.O_WRONLY|os.O_CREATE, 0o644)
	must(t, err)
	_, err = file.WriteAt([]byte(text.String()), 0)
	must(t, err)
	must(t, file.Close())
}

// wrapper runs a program that reads the hosts file.
func (w *named) wrapper(t *testing.T) wrapper {
	return apart(t, fmt.Sprintf("mount --bind %s /etc/hosts", w.hosts))
}

// departed has those foreignAnswers that a node gives which runs and does not serve any more.
var departed = []string{"sealed", "standby", "page_502", "page_503", "dr_standby", "performance_standby"}

// requireFollowed fails unless all calls work within 5 s, measured from now.
func (p *plugin) requireFollowed(t *testing.T, since string) {
	t.Helper()
	moved := parts.StartWatch()
	p.waitHealthy(t, since, moveBound+slack)
	requireTook(t, moved, moveBound)
}

// TestDNSMovesFromANodeThatStillAnswers moves the name while connections to the former node are open. That node
// answers that it does not serve. The plugin must use the other node within 5 s.
func TestDNSMovesFromANodeThatStillAnswers(t *testing.T) {
	t.Parallel()
	for _, what := range departed {
		trial := "dns_moves_from_a_" + what + "_node"
		t.Run(trial, func(t *testing.T) {
			t.Parallel()
			w := newNamed(t)
			w.resolvesTo(t, addressOne)
			p := start(t, w.flags, w.wrapper(t)...)
			if asked := w.two.asked.Load(); asked != 0 {
				t.Fatalf("the other node got %d logins", asked)
			}
			w.one.say(foreignAnswers[what].answer, isAny)
			_ = p.works(t.Context())
			w.resolvesTo(t, addressTwo)
			p.requireFollowed(t, "after the name has moved")
			p.requireNeverTold(t, blames...)
		})
	}
}

// TestDNSMovesFromANodeThatHangs does the same with a former node whose connections hang.
func TestDNSMovesFromANodeThatHangs(t *testing.T) {
	t.Parallel()
	w := newNamed(t)
	w.resolvesTo(t, addressOne)
	p := start(t, w.flags, w.wrapper(t)...)
	hang := make(chan struct{})
	t.Cleanup(func() { close(hang) })
	w.one.hold(hang)
	_ = p.status(t.Context())
	w.resolvesTo(t, addressTwo)
	p.requireFollowed(t, "after the name has moved")
}

// TestNameWithTwoAddresses expects that the plugin uses the second address of a name while the node at the first
// address answers that it does not serve, from the start on or later.
func TestNameWithTwoAddresses(t *testing.T) {
	t.Parallel()
	for _, what := range departed {
		answer := foreignAnswers[what].answer
		t.Run("at_the_start_"+what, func(t *testing.T) {
			t.Parallel()
			w := newNamed(t)
			w.resolvesTo(t, addressOne, addressTwo)
			w.one.say(answer, isAny)
			start(t, w.flags, w.wrapper(t)...)
		})
		t.Run("later_"+what, func(t *testing.T) {
			t.Parallel()
			w := newNamed(t)
			w.resolvesTo(t, addressOne, addressTwo)
			p := start(t, w.flags, w.wrapper(t)...)
			first, second := w.one, w.two
			if second.asked.Load() > 0 {
				first, second = second, first
			}
			first.say(answer, isAny)
			p.requireFollowed(t, "after the first node does not serve")
			first.heal()
			second.say(answer, isAny)
			p.requireFollowed(t, "after the second node does not serve")
		})
	}
}

// TestNameWithAFinalDot expects that the certificate is verified for the name without the final dot.
func TestNameWithAFinalDot(t *testing.T) {
	t.Parallel()
	w := newNamed(t)
	w.resolvesTo(t, addressOne)
	flags := slices.Clone(w.flags)
	for i := range flags {
		flags[i] = strings.Replace(flags[i], "https://"+name+":", "https://"+name+".:", 1)
	}
	start(t, flags, w.wrapper(t)...)
	printed, _ := check(t, flags, w.wrapper(t)...)
	requireNone(t, strings.Split(printed, "\n"), "FAIL")
}

// TestIPv6IsOff expects that the ports and the socket serve without IPv6.
func TestIPv6IsOff(t *testing.T) {
	if !suite.ApartFromNetwork(t) {
		return
	}
	for _, scope := range []string{"all", "default", "lo"} {
		err := os.WriteFile("/proc/sys/net/ipv6/conf/"+scope+"/disable_ipv6", []byte("1"), 0)
		// A kernel without IPv6 needs no change.
		if err != nil && !os.IsNotExist(err) {
			suite.Skip(t, fmt.Sprintf("IPv6 CANNOT BE SWITCHED OFF: %v", err))
		}
	}
	p := start(t, localFlags(t))
	for _, url := range []string{p.health + "/healthz", p.health + "/readyz", p.inside + "/metrics"} {
		if code, text := p.get(url); code != 200 {
			t.Errorf("%s: %d %s", url, code, text)
		}
	}
}
