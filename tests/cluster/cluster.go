// Package cluster runs a control plane on the loopback interface: a keeper, etcd, and on each node a plugin and
// an API server.
package cluster

import (
	"fmt"
	"os"
	"path/filepath"

	"vault-kube-kms.test/parts"
)

// Keeper is the kind of keeper.
type Keeper string

// These are the kinds of keepers.
const (
	OpenBao Keeper = "openbao"
	Local   Keeper = "local"
	PKCS11  Keeper = "pkcs11"
)

// Key is the name of the key, of its policy and of its role.
const Key = "cluster"

// The life of the plugins' tokens, in seconds. It is short, so that a person sees renewals and logins.
const tokenSeconds = 120

// Programs has the files and folders of the programs of a control plane.
type Programs struct {
	// Plugin and OpenBao are programs.
	Plugin, OpenBao string
	// Kubernetes holds kube-apiserver and kubectl; Etcd holds etcd, etcdctl and etcdutl.
	Kubernetes, Etcd string
}

// Settings has the settings of a control plane.
type Settings struct {
	Programs Programs
	// Dir is the folder of all files. Its path should be short, because sockets are below it.
	Dir string
	// Outlive lets the cluster run on after the end of this process.
	Outlive  bool
	Keeper   Keeper
	Replicas int
	// Encryption returns the EncryptionConfiguration for the socket of a plugin.
	Encryption func(endpoint string) string
	// Route is an address, and the file of its authority, by which a plugin reaches OpenBao. Without it, plugins
	// connect directly.
	Route func(*parts.OpenBao) (address, caFile string)
	// PluginFlags and APIServerFlags are further flags.
	PluginFlags, APIServerFlags []string
	// Say is called with a text for each step.
	Say func(string)
}

// Cluster is a running control plane.
type Cluster struct {
	Settings
	// Bao and Tenant are nil for other keepers.
	Bao    *parts.OpenBao
	Tenant *parts.Tenant
	// Token is nil unless the keeper is PKCS11.
	Token *parts.Token
	Etcd  *parts.Etcd
	Nodes []*Node

	way   parts.Way
	state State
}

// Node is a control-plane node.
type Node struct {
	Plugin    *parts.Plugin
	APIServer *parts.APIServer
	// Encryption is the file of its EncryptionConfiguration.
	Encryption string
}

// Up starts a control plane. If a step fails, it ends all that it has started.
func Up(settings Settings) (*Cluster, error) {
	c := &Cluster{Settings: settings}
	if err := os.MkdirAll(c.Dir, 0o700); err != nil {
		return nil, err
	}
	c.way = parts.Way{Logs: c.Dir, Outlive: c.Outlive, Started: c.started}
	if err := c.start(); err != nil {
		c.Down()
		return nil, err
	}
	return c, nil
}

func (c *Cluster) start() error {
	flags, err := c.startKeeper()
	if err != nil {
		return err
	}
	dir, err := c.folder("etcd")
	if err != nil {
		return err
	}
	if c.Etcd, err = parts.StartEtcd(c.way, c.Programs.Etcd, dir); err != nil {
		return err
	}
	c.say("etcd", c.Etcd.URL)
	for number := 1; number <= c.Replicas; number++ {
		if err := c.startNode(number, append(flags, c.PluginFlags...)); err != nil {
			return err
		}
	}
	return nil
}

// startKeeper starts a keeper with a key. It returns the flags of a plugin that uses the key.
func (c *Cluster) startKeeper() ([]string, error) {
	dir, err := c.folder("keeper")
	if err != nil {
		return nil, err
	}
	if c.Keeper == Local {
		file := "--local-key-file=" + filepath.Join(dir, "key.json")
		if out, err := parts.Command(c.Programs.Plugin, "local", "init", file).CombinedOutput(); err != nil {
			return nil, fmt.Errorf("local init: %w: %s", err, out)
		}
		return []string{"--keeper=local", file}, nil
	}
	if c.Keeper == PKCS11 {
		if c.Token, err = parts.NewToken(dir); err != nil {
			return nil, err
		}
		return c.Token.Flags, c.Token.Init(c.Programs.Plugin)
	}
	if c.Bao, err = parts.StartOpenBao(c.way, c.Programs.OpenBao, dir); err != nil {
		return nil, err
	}
	c.state.OpenBao = &Access{URL: "https://" + c.Bao.Address, CAFile: c.Bao.CAFile, Token: c.Bao.Token}
	c.say("openbao", c.state.OpenBao.URL)
	if c.Tenant, err = c.Bao.NewTenant(Key, dir, tokenSeconds, parts.UseOfKey...); err != nil {
		return nil, err
	}
	flags := c.Tenant.Flags()
	if c.Route != nil {
		address, caFile := c.Route(c.Bao)
		flags = append(c.Tenant.FlagsVia(address), "--tls-ca-file="+caFile)
	}
	return flags, c.Tenant.MakeKey()
}

func (c *Cluster) startNode(number int, flags []string) error {
	name := fmt.Sprintf("node-%d", number)
	dir, err := c.folder(name)
	if err != nil {
		return err
	}
	node := &Node{Encryption: filepath.Join(dir, "encryption.yaml")}
	c.Nodes = append(c.Nodes, node)
	endpoint := "unix://" + filepath.Join(dir, "kms.sock")
	plugin := fmt.Sprintf("plugin-%d", number)
	way := c.way
	if c.Token != nil {
		way.Variables = []string{c.Token.Variable}
	}
	if node.Plugin, err = parts.StartPlugin(way, plugin, c.Programs.Plugin, endpoint, flags...); err != nil {
		return err
	}
	c.say(plugin, endpoint)
	if err := node.Configure(c.Encryption(endpoint)); err != nil {
		return err
	}
	apiServer := fmt.Sprintf("kube-apiserver-%d", number)
	program := filepath.Join(c.Programs.Kubernetes, "kube-apiserver")
	node.APIServer, err = parts.NewAPIServer(c.way, apiServer, program, dir, c.Etcd, node.Encryption, c.APIServerFlags...)
	if err != nil {
		return err
	}
	a := node.APIServer
	c.state.APIServers = append(c.state.APIServers, Access{URL: a.URL, CAFile: a.CAFile, Token: a.Token})
	if err := a.Start(); err != nil {
		return err
	}
	c.say(apiServer, a.URL)
	return nil
}

// Configure replaces the EncryptionConfiguration of the node in one step.
func (n *Node) Configure(encryption string) error {
	draft := n.Encryption + ".new"
	if err := os.WriteFile(draft, []byte(encryption), 0o600); err != nil {
		return err
	}
	return os.Rename(draft, n.Encryption)
}

// Rotate adds a version to the key.
func (c *Cluster) Rotate() error {
	if c.Tenant != nil {
		return c.Tenant.Rotate()
	}
	if c.Token != nil {
		return c.Token.Rotate(c.Programs.Plugin)
	}
	file := "--local-key-file=" + filepath.Join(c.Dir, "keeper", "key.json")
	if out, err := parts.Command(c.Programs.Plugin, "local", "rotate", file).CombinedOutput(); err != nil {
		return fmt.Errorf("local rotate: %w: %s", err, out)
	}
	return nil
}

// Down ends all processes, in the order of their dependencies.
func (c *Cluster) Down() {
	for _, node := range c.Nodes {
		if node.APIServer != nil && node.APIServer.Process != nil {
			// On SIGTERM it would wait for the end of its connections.
			node.APIServer.Kill()
		}
		if node.Plugin != nil && node.Plugin.Process != nil {
			node.Plugin.Stop()
		}
	}
	if c.Etcd != nil && c.Etcd.Process != nil {
		c.Etcd.Kill()
	}
	if c.Bao != nil && c.Bao.Process != nil {
		c.Bao.Kill()
	}
}

func (c *Cluster) folder(name string) (string, error) {
	dir := filepath.Join(c.Dir, name)
	return dir, os.MkdirAll(dir, 0o700)
}

func (c *Cluster) say(name, where string) { c.Say(fmt.Sprintf("%-17s %s", name, where)) }

// started records a process, so that a later process can end it.
func (c *Cluster) started(name string, pid int) error { return c.state.add(c.Dir, name, pid) }
