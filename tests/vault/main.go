// Command vault runs a HashiCorp Vault server for tests, with the backends that the tests use.
//
// The server of the published module contains every storage backend and every plugin, and does
// not build from published modules alone. This command accepts the arguments of `vault server`
// that the tests give.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/vault/vault"
)

// startBound limits the first requests of a new server in development mode.
const startBound = 30 * time.Second

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "vault:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	if len(args) == 0 || args[0] != "server" {
		return errors.New("the only command is `server`")
	}
	settings, err := read(args[1:])
	if err != nil {
		return err
	}
	level := os.Getenv("VAULT_LOG_LEVEL")
	if level == "" {
		level = "info"
	}
	logger := hclog.New(&hclog.LoggerOptions{Output: os.Stderr, Level: hclog.LevelFromString(level)})
	config, err := coreConfig(settings, logger)
	if err != nil {
		return err
	}
	core, err := vault.NewCore(config)
	if err != nil {
		return err
	}
	listener, err := listen(settings)
	if err != nil {
		return err
	}
	handler, err := handlerOf(core, settings)
	if err != nil {
		return err
	}
	core.SetClusterHandler(handler)
	if settings.Cluster != "" {
		address, err := net.ResolveTCPAddr("tcp", settings.Cluster)
		if err != nil {
			return err
		}
		core.SetClusterListenerAddrs([]*net.TCPAddr{address})
	}
	if settings.Dev {
		if err := start(core, settings); err != nil {
			return err
		}
	} else if err := core.InitiateRetryJoin(context.Background()); err != nil {
		return err
	}
	server := &http.Server{Handler: handler, ErrorLog: logger.StandardLogger(nil)}
	ended := make(chan error, 1)
	go func() { ended <- server.Serve(listener) }()
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGTERM, os.Interrupt)
	select {
	case <-signals:
	case err := <-ended:
		return err
	}
	_ = server.Close()
	return core.Shutdown()
}

// settings are those of one server.
type settings struct {
	// Dev says that the server starts initialised and unsealed, with its data in memory.
	Dev bool
	// Token is the root token in development mode.
	Token string
	// Address is the host and port to listen at, Cluster those for other nodes.
	Address, Cluster string
	// CertFile and KeyFile hold the certificate. Without them the server uses no TLS.
	CertFile, KeyFile string
	// API and ClusterAPI are the URLs that other nodes are told.
	API, ClusterAPI string
	// Raft configures the storage.
	Raft map[string]string
	// Limits are those of JSON by the name of their field.
	Limits map[string]int64
}

func read(args []string) (*settings, error) {
	s := &settings{Limits: map[string]int64{}}
	flags := flag.NewFlagSet("server", flag.ContinueOnError)
	flags.BoolVar(&s.Dev, "dev", false, "start initialised and unsealed, with the data in memory")
	flags.Bool("dev-no-store-token", true, "accepted; this server never stores the token")
	withTLS := flags.Bool("dev-tls", false, "make a certificate, and use it")
	dir := flags.String("dev-tls-cert-dir", "", "the folder of the certificate and its authority")
	flags.StringVar(&s.Address, "dev-listen-address", "127.0.0.1:8200", "the host and port")
	flags.StringVar(&s.Token, "dev-root-token-id", "", "the root token")
	file := flags.String("config", "", "a JSON file with storage.raft, listener.tcp, api_addr and cluster_addr")
	for _, limit := range limits {
		flags.Func(limit.flag, "a limit of JSON bodies, from Vault 1.21 on", limit.into(s.Limits))
	}
	if err := flags.Parse(args); err != nil {
		return nil, err
	}
	switch {
	case s.Dev && *withTLS:
		return s, s.makeCertificate(*dir)
	case s.Dev:
		return s, nil
	case *file != "":
		return s, s.readFile(*file)
	}
	return nil, errors.New("give -dev or -config")
}
