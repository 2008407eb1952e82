package hostile_test

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"testing"
	"time"

	"vault-kube-kms.test/parts"
)

// The number of clients that send nothing, or a byte from time to time, and connect again when the server ends
// them.
const slowClients = 100

// TestSlowClientsStarveNoProbe expects that probes of 1 s and scrapes succeed during connections of slow clients.
func TestSlowClientsStarveNoProbe(t *testing.T) {
	p := start(t, localFlags(t)...)
	for port, url := range map[string]string{
		p.health: "http://" + p.health + "/healthz",
		p.inside: "http://" + p.inside + "/metrics",
	} {
		done := make(chan struct{})
		var group sync.WaitGroup
		for client := range slowClients {
			group.Go(func() { dawdle(port, client, done) })
		}
		prober := http.Client{
			Timeout:   parts.Stretched(time.Second),
			Transport: &http.Transport{DisableKeepAlives: true},
		}
		probes := 0
		for watch := parts.StartWatch(); watch.Calm() < 5*time.Second; probes++ {
			if err := probe(prober, url); err != nil {
				t.Errorf("probe %d of %s: %v", probes, url, err)
			}
			<-time.After(100 * time.Millisecond)
		}
		close(done)
		group.Wait()
		t.Logf("%d of %s", probes, url)
	}
}

func probe(prober http.Client, url string) error {
	answer, err := prober.Get(url)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		return fmt.Errorf("status %d", answer.StatusCode)
	}
	_, err = io.Copy(io.Discard, answer.Body)
	return err
}

// dawdle keeps one connection open as long as it can, and then opens the next. A third of the clients send
// nothing, a third send half a head, and a third send a byte of the head every 200 ms.
func dawdle(address string, client int, done <-chan struct{}) {
	for open(done) {
		conn, err := net.DialTimeout("tcp", address, time.Second)
		if err != nil {
			<-time.After(10 * time.Millisecond)
			continue
		}
		head := "GET /healthz HTTP/1.1\r\nHost: localhost\r\nX-Slow: "
		switch client % 3 {
		case 1:
			_, _ = io.WriteString(conn, head)
		case 2:
			go func() {
				for index := 0; ; index++ {
					<-time.After(200 * time.Millisecond)
					if _, err := conn.Write([]byte{(head + "xxxx")[index%len(head)]}); err != nil {
						return
					}
				}
			}()
		}
		ended := make(chan struct{})
		go func() { _, _ = io.Copy(io.Discard, conn); close(ended) }()
		select {
		case <-ended:
		case <-done:
		}
		_ = conn.Close()
		<-ended
	}
}
