package parts

import (
	"bytes"
	"crypto/tls"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"
)

// nodes is the smallest number that survives the loss of one node.
const nodes = 3

// A joining node accepts its unseal key only after some time, and each try costs it work.
const unsealPause = 250 * time.Millisecond

// Raft is an OpenBao of several nodes that share their data. Each node has a certificate of the same authority.
type Raft struct {
	Nodes []*OpenBao
	// Authority issues all certificates.
	Authority *Authority

	dir string
}

// StartRaft starts a cluster with its data in a folder, and unseals all nodes.
func StartRaft(way Way, program, dir string) (*Raft, error) {
	authority, err := NewAuthority(dir, 365)
	if err != nil {
		return nil, err
	}
	r := &Raft{Authority: authority, dir: dir}
	for range nodes {
		r.Nodes = append(r.Nodes, &OpenBao{Address: FreeAddress(), CAFile: authority.File})
	}
	for index := range r.Nodes {
		if err := r.configure(way, program, index); err != nil {
			return nil, err
		}
	}
	if err := r.firstStart(); err != nil {
		r.Kill()
		return nil, fmt.Errorf("Raft: %w", err)
	}
	return r, nil
}

func (r *Raft) configure(way Way, program string, index int) error {
	dir := r.dirOf(index)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	certificate, err := r.Authority.Issue(dir)
	if err != nil {
		return err
	}
	var peers []map[string]any
	for other, peer := range r.Nodes {
		if other != index {
			peers = append(peers, map[string]any{
				"leader_api_addr": "https://" + peer.Address, "leader_ca_cert_file": r.Authority.File,
			})
		}
	}
	return r.Nodes[index].configure(way, nodeName(index), program, dir, certificate, peers)
}

func nodeName(index int) string { return fmt.Sprintf("openbao-%d", index+1) }

func (r *Raft) dirOf(index int) string { return filepath.Join(r.dir, nodeName(index)) }

// firstStart initialises the first node; the others join it.
func (r *Raft) firstStart() error {
	first, others := r.Nodes[0], r.Nodes[1:]
	if err := first.firstStart(first.initialise); err != nil {
		return err
	}
	first.standsBy = true
	// A node that joins gets its vote after ten seconds.
	if _, err := first.Ask("POST", "sys/storage/raft/autopilot/configuration", map[string]any{
		"server_stabilization_time": "1s",
	}); err != nil {
		return err
	}
	if err := each(others, func(node *OpenBao) error {
		node.Token, node.unseal, node.standsBy = first.Token, first.unseal, true
		return node.Rejoin()
	}); err != nil {
		return err
	}
	_, err := r.UntilWhole()
	return err
}

// Rejoin starts a node of a cluster again after its end, and unseals it.
func (b *OpenBao) Rejoin() error {
	if err := b.RestartSealed(); err != nil {
		return err
	}
	return b.UntilUnsealed()
}

// UntilUnsealed unseals a node of a cluster and waits until it serves.
func (b *OpenBao) UntilUnsealed() error {
	var last error
	if !EventuallyEvery(unsealPause, StartBound, func() bool {
		last = b.Unseal()
		return last == nil
	}) {
		return fmt.Errorf("it is not unsealed after %v: %w: %s", StartBound, last, Tail(b.Printed()))
	}
	return b.untilServes()
}

// Snapshot returns a snapshot of all data of a server.
func (b *OpenBao) Snapshot() ([]byte, error) {
	return b.raftSnapshot("GET", "sys/storage/raft/snapshot", nil)
}

// RestoreSnapshot replaces all data of a server by a snapshot of another one, whose unseal key and root token it then
// has.
func (b *OpenBao) RestoreSnapshot(snapshot []byte, from *OpenBao) error {
	if _, err := b.raftSnapshot("POST", "sys/storage/raft/snapshot-force", snapshot); err != nil {
		return err
	}
	b.unseal, b.Token = from.unseal, from.Token
	return b.UntilUnsealed()
}

func (b *OpenBao) raftSnapshot(method, path string, body []byte) ([]byte, error) {
	request, err := http.NewRequest(method, "https://"+b.Address+"/v1/"+path, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	request.Header.Set("X-Vault-Token", b.Token)
	response, err := b.HTTP.Do(request)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	answer, err := io.ReadAll(response.Body)
	if err == nil && response.StatusCode >= 300 {
		err = fmt.Errorf("%s %s: %s %s", method, path, response.Status, answer)
	}
	return answer, err
}

// Each runs an action on all nodes at the same time.
func (r *Raft) Each(do func(node *OpenBao) error) error { return each(r.Nodes, do) }

func each(nodes []*OpenBao, do func(node *OpenBao) error) error {
	failures := make([]error, len(nodes))
	var group sync.WaitGroup
	for index, node := range nodes {
		group.Go(func() { failures[index] = do(node) })
	}
	group.Wait()
	return errors.Join(failures...)
}

// Kill kills all nodes with SIGKILL.
func (r *Raft) Kill() {
	for _, node := range r.Nodes {
		if node.Process != nil {
			node.Kill()
		}
	}
}

// Leader waits until a node leads and serves as leader.
func (r *Raft) Leader() (*OpenBao, error) { return r.LeaderBut(nil) }

// LeaderBut waits until another node than the former leader leads.
func (r *Raft) LeaderBut(former *OpenBao) (leader *OpenBao, err error) {
	if !Eventually(StartBound, func() bool {
		for _, node := range r.Nodes {
			if node != former && node.leads() {
				leader = node
				return true
			}
		}
		return false
	}) {
		return nil, fmt.Errorf("no node leads after %v", StartBound)
	}
	return leader, nil
}

// leads reports whether it answers at once that it leads, and can write. A node that was paused may take itself
// for the leader until it hears from another one, and for longer.
func (b *OpenBao) leads() bool {
	if !b.Alive() {
		return false
	}
	impatient, hurried := *b, *b.HTTP
	hurried.Timeout = time.Second
	impatient.HTTP = &hurried
	if _, err := impatient.Ask("GET", "sys/health", nil); err != nil {
		return false
	}
	_, err := impatient.Ask("POST", "cubbyhole/leads", map[string]any{"asked": "a moment ago"})
	return err == nil
}

// UntilWhole waits until all nodes serve and have a vote, and one of them leads.
func (r *Raft) UntilWhole() (leader *OpenBao, err error) {
	if leader, err = r.Leader(); err != nil {
		return nil, err
	}
	if err := r.Each((*OpenBao).untilServes); err != nil {
		return nil, err
	}
	return leader, leader.Until(func() error { return leader.requireVotes(len(r.Nodes)) })
}

// requireVotes requires that this number of nodes has a vote. Otherwise the loss of one node stops the cluster.
func (b *OpenBao) requireVotes(count int) error {
	about, err := b.Ask("GET", "sys/storage/raft/configuration", nil)
	if err != nil {
		return err
	}
	config, _ := about["config"].(map[string]any)
	servers, _ := config["servers"].([]any)
	votes := 0
	for _, server := range servers {
		if server, _ := server.(map[string]any); server["voter"] == true {
			votes++
		}
	}
	if votes != count {
		return fmt.Errorf("%d of %d nodes have a vote", votes, count)
	}
	return nil
}

// Followers returns all nodes except the leader.
func (r *Raft) Followers(leader *OpenBao) (others []*OpenBao) {
	for _, node := range r.Nodes {
		if node != leader {
			others = append(others, node)
		}
	}
	return others
}

// Addresses returns the addresses of all nodes, that of this node first.
func (r *Raft) Addresses(first *OpenBao) []string {
	addresses := []string{first.Address}
	for _, node := range r.Followers(first) {
		addresses = append(addresses, node.Address)
	}
	return addresses
}

// NextAuthority makes an authority that can replace the present one.
func (r *Raft) NextAuthority() (*Authority, error) {
	dir, err := os.MkdirTemp(r.dir, "authority")
	if err != nil {
		return nil, err
	}
	return NewAuthority(dir, 365)
}

// Renew gives all nodes new certificates of this authority, without a restart.
func (r *Raft) Renew(authority *Authority) error {
	r.Authority = authority
	trust, err := trusting(authority.File)
	if err != nil {
		return err
	}
	for index, node := range r.Nodes {
		if err := node.renew(authority, r.dirOf(index)); err != nil {
			return err
		}
		node.CAFile, node.HTTP = authority.File, trust
	}
	return nil
}

func (b *OpenBao) renew(authority *Authority, dir string) error {
	certificate, err := authority.Issue(dir)
	if err != nil {
		return err
	}
	text, err := os.ReadFile(certificate.CertFile)
	if err != nil {
		return err
	}
	block, _ := pem.Decode(text)
	b.Signal(syscall.SIGHUP)
	return b.Until(func() error {
		shown, err := b.shown()
		if err == nil && !bytes.Equal(shown, block.Bytes) {
			err = errors.New("it shows the former certificate")
		}
		return err
	})
}

// shown returns the certificate that a node sends to clients.
func (b *OpenBao) shown() ([]byte, error) {
	// The certificate is only compared, so it need not be trusted.
	conn, err := tls.Dial("tcp", b.Address, &tls.Config{InsecureSkipVerify: true})
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	return conn.ConnectionState().PeerCertificates[0].Raw, nil
}
