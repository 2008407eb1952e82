package parts

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// spireDomain is the trust domain.
const spireDomain = "spiffe://example.org"

// Spire is a SPIRE server of the trust domain example.org, with its data in a folder.
type Spire struct {
	*Process

	way      Way
	programs string
	dir      string
	address  string
}

// StartSpire starts a server; programs is the folder of spire-server and spire-agent.
func StartSpire(way Way, programs, dir string) (*Spire, error) {
	s := &Spire{way: way, programs: programs, dir: dir, address: FreeAddress()}
	host, port, err := net.SplitHostPort(s.address)
	if err != nil {
		return nil, err
	}
	file, err := s.configure(dir, "server", map[string]any{
		"server": map[string]any{
			"bind_address": host, "bind_port": port, "socket_path": s.socket(),
			"trust_domain": strings.TrimPrefix(spireDomain, "spiffe://"), "data_dir": dir, "log_level": "INFO",
			// An entry is used soon. The default is 5 s.
			"experimental": map[string]any{"cache_reload_interval": "1s"},
		},
		"plugins": map[string]any{
			"DataStore": plugin("sql", map[string]any{
				"database_type": "sqlite3", "connection_string": filepath.Join(dir, "spire.sqlite3"),
			}),
			"NodeAttestor": plugin("join_token", map[string]any{}),
			"KeyManager":   plugin("memory", map[string]any{}),
		},
	})
	if err != nil {
		return nil, err
	}
	args := []string{filepath.Join(programs, "spire-server"), "run", "-config=" + file}
	if s.Process, err = way.Start("spire-server", args); err != nil {
		return nil, err
	}
	err = s.Until(func() error {
		_, err := s.ask("healthcheck")
		return err
	})
	if err != nil {
		s.Kill()
		return nil, fmt.Errorf("the SPIRE server: %w", err)
	}
	return s, nil
}

func (s *Spire) socket() string { return filepath.Join(s.dir, "server.sock") }

// plugin is the configuration of one plugin of a kind.
func plugin(name string, data map[string]any) []any {
	return []any{map[string]any{name: map[string]any{"plugin_data": data}}}
}

func (s *Spire) configure(dir, name string, config map[string]any) (string, error) {
	text, err := json.MarshalIndent(config, "", "  ")
	if err != nil {
		return "", err
	}
	file := filepath.Join(dir, name+".conf")
	return file, os.WriteFile(file, text, 0o600)
}

// ask runs a command of the server's own client.
func (s *Spire) ask(args ...string) (string, error) {
	args = append([]string{filepath.Join(s.programs, "spire-server")}, args...)
	out, err := Command(append(args, "-socketPath="+s.socket())...).CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("%q: %w: %s", args, err, out)
	}
	return string(out), nil
}

// X509Bundle is the authorities of X.509-SVIDs in PEM.
func (s *Spire) X509Bundle() (string, error) { return s.ask("bundle", "show") }

// JWTKeys are the public keys of JWT-SVIDs, each in PEM.
func (s *Spire) JWTKeys() ([]string, error) {
	text, err := s.ask("bundle", "show", "-format=spiffe")
	if err != nil {
		return nil, err
	}
	var bundle struct {
		Keys []struct{ Use, Crv, X, Y string }
	}
	if err := json.Unmarshal([]byte(text), &bundle); err != nil {
		return nil, err
	}
	var keys []string
	for _, key := range bundle.Keys {
		if key.Use != "jwt-svid" {
			continue
		}
		x, errX := base64.RawURLEncoding.DecodeString(key.X)
		y, errY := base64.RawURLEncoding.DecodeString(key.Y)
		if errX != nil || errY != nil || key.Crv != "P-256" {
			return nil, fmt.Errorf("a JWT key cannot be read: %s", text)
		}
		public := &ecdsa.PublicKey{Curve: elliptic.P256(), X: new(big.Int).SetBytes(x), Y: new(big.Int).SetBytes(y)}
		der, err := x509.MarshalPKIXPublicKey(public)
		if err != nil {
			return nil, err
		}
		keys = append(keys, string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})))
	}
	return keys, nil
}

// SpireAgent is an agent of a server, which is the node of its own entries.
type SpireAgent struct {
	*Process
	// Socket is that of its Workload API.
	Socket string

	spire *Spire
	args  []string
	node  string
}

// NewAgent prepares an agent with its data in a folder, and does not start it.
func (s *Spire) NewAgent(dir string) (*SpireAgent, error) {
	bundle, err := s.X509Bundle()
	if err != nil {
		return nil, err
	}
	trusted := filepath.Join(dir, "bundle.pem")
	if err := os.WriteFile(trusted, []byte(bundle), 0o600); err != nil {
		return nil, err
	}
	text, err := s.ask("token", "generate", "-output=json")
	if err != nil {
		return nil, err
	}
	var token struct{ Value string }
	if err := json.Unmarshal([]byte(text), &token); err != nil {
		return nil, err
	}
	host, port, err := net.SplitHostPort(s.address)
	if err != nil {
		return nil, err
	}
	a := &SpireAgent{
		Socket: filepath.Join(dir, "agent.sock"), spire: s,
		node: spireDomain + "/spire/agent/join_token/" + token.Value,
	}
	number, err := strconv.Atoi(port)
	if err != nil {
		return nil, err
	}
	file, err := s.configure(dir, "agent", map[string]any{
		"agent": map[string]any{
			"data_dir": dir, "log_level": "INFO", "server_address": host, "server_port": number,
			"socket_path": a.Socket, "trust_bundle_path": trusted, "join_token": token.Value,
			"trust_domain": strings.TrimPrefix(spireDomain, "spiffe://"),
			"experimental": map[string]any{"sync_interval": "1s"},
		},
		"plugins": map[string]any{
			"NodeAttestor":     plugin("join_token", map[string]any{}),
			"KeyManager":       plugin("disk", map[string]any{"directory": dir}),
			"WorkloadAttestor": plugin("unix", map[string]any{}),
		},
	})
	a.args = []string{filepath.Join(s.programs, "spire-agent"), "run", "-config=" + file}
	return a, err
}

// Start starts the agent, or starts it again, and waits until it gives the identity of its entry to this user. An
// agent that serves may not know the entry yet.
func (a *SpireAgent) Start() error {
	var err error
	if a.Process, err = a.spire.way.Start("spire-agent", a.args); err != nil {
		return err
	}
	err = a.Until(func() error {
		return run(filepath.Join(a.spire.programs, "spire-agent"), "api", "fetch", "x509", "-silent", "-socketPath="+a.Socket)
	})
	if err != nil {
		a.Kill()
		return fmt.Errorf("the SPIRE agent: %w", err)
	}
	return nil
}

// MakeEntry gives an identity to each process of this user, with lifetimes of its SVIDs in seconds. The DNS name
// becomes the common name of the certificate, which the auth method cert takes as the name of the client.
func (a *SpireAgent) MakeEntry(path string, x509, jwt int) (id string, err error) {
	text, err := a.spire.ask(
		"entry", "create", "-output=json", "-parentID="+a.node, "-spiffeID="+spireDomain+path,
		"-dns=kms.example.org", "-selector=unix:uid:"+strconv.Itoa(os.Getuid()),
		"-x509SVIDTTL="+strconv.Itoa(x509), "-jwtSVIDTTL="+strconv.Itoa(jwt),
	)
	if err != nil {
		return "", err
	}
	var made struct {
		Results []struct{ Entry struct{ ID string } }
	}
	if err := json.Unmarshal([]byte(text), &made); err != nil || len(made.Results) != 1 {
		return "", fmt.Errorf("entry create printed %s", text)
	}
	return made.Results[0].Entry.ID, nil
}

// DeleteEntry takes an identity away.
func (a *SpireAgent) DeleteEntry(id string) error {
	_, err := a.spire.ask("entry", "delete", "-entryID="+id)
	return err
}
