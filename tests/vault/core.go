package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"reflect"
	"strconv"

	"github.com/hashicorp/go-hclog"
	jwt "github.com/hashicorp/vault-plugin-auth-jwt"
	kubernetes "github.com/hashicorp/vault-plugin-auth-kubernetes"
	"github.com/hashicorp/vault/builtin/credential/approle"
	"github.com/hashicorp/vault/builtin/credential/cert"
	"github.com/hashicorp/vault/builtin/credential/userpass"
	"github.com/hashicorp/vault/builtin/logical/transit"
	"github.com/hashicorp/vault/helper/namespace"
	vaulthttp "github.com/hashicorp/vault/http"
	"github.com/hashicorp/vault/internalshared/configutil"
	"github.com/hashicorp/vault/physical/raft"
	"github.com/hashicorp/vault/sdk/helper/consts"
	"github.com/hashicorp/vault/sdk/logical"
	"github.com/hashicorp/vault/sdk/physical"
	"github.com/hashicorp/vault/sdk/physical/inmem"
	"github.com/hashicorp/vault/vault"
)

var (
	engines = map[string]logical.Factory{"transit": transit.Factory}
	methods = map[string]logical.Factory{
		"approle": approle.Factory, "cert": cert.Factory, "jwt": jwt.Factory,
		"kubernetes": kubernetes.Factory, "userpass": userpass.Factory,
	}
)

// builtin says which plugins are part of this program.
type builtin struct{}

func (builtin) of(kind consts.PluginType) map[string]logical.Factory {
	switch kind {
	case consts.PluginTypeSecrets:
		return engines
	case consts.PluginTypeCredential:
		return methods
	}
	return nil
}

func (b builtin) Contains(name string, kind consts.PluginType) bool {
	_, found := b.of(kind)[name]
	return found
}

func (b builtin) Get(name string, kind consts.PluginType) (func() (any, error), bool) {
	factory, found := b.of(kind)[name]
	return func() (any, error) { return factory, nil }, found
}

func (b builtin) Keys(kind consts.PluginType) (names []string) {
	for name := range b.of(kind) {
		names = append(names, name)
	}
	return names
}

func (b builtin) DeprecationStatus(name string, kind consts.PluginType) (consts.DeprecationStatus, bool) {
	return consts.Supported, b.Contains(name, kind)
}

func (builtin) IsBuiltinEntPlugin(string, consts.PluginType) bool { return false }

func coreConfig(s *settings, logger hclog.Logger) (*vault.CoreConfig, error) {
	config := &vault.CoreConfig{
		BuiltinRegistry: builtin{}, LogicalBackends: engines, CredentialBackends: methods,
		Logger: logger, DisableMlock: true, RedirectAddr: s.API, ClusterAddr: s.ClusterAPI,
	}
	var err error
	if s.Dev {
		config.StorageType = "inmem"
		config.Physical, err = inmem.NewInmem(nil, logger)
		return config, err
	}
	config.StorageType = "raft"
	config.Physical, err = raft.NewRaftBackend(s.Raft, logger.Named("raft"))
	if err != nil {
		return nil, err
	}
	config.HAPhysical, _ = config.Physical.(physical.HABackend)
	return config, nil
}

// start initialises and unseals the server, and makes its root token.
func start(core *vault.Core, s *settings) error {
	ctx, cancel := context.WithTimeout(context.Background(), startBound)
	defer cancel()
	one := func() *vault.SealConfig { return &vault.SealConfig{SecretShares: 1, SecretThreshold: 1} }
	made, err := core.Initialize(ctx, &vault.InitParams{BarrierConfig: one(), RecoveryConfig: one()})
	if err != nil {
		return err
	}
	if _, err := core.Unseal(made.SecretShares[0]); err != nil {
		return err
	}
	if s.Token == "" {
		return nil
	}
	root := func(path string, data map[string]any) error {
		request := &logical.Request{
			ID: path, Operation: logical.UpdateOperation, ClientToken: made.RootToken, Path: path, Data: data,
		}
		_, err := core.HandleRequest(namespace.RootContext(ctx), request)
		return err
	}
	if err := root("auth/token/create", map[string]any{
		"id": s.Token, "policies": []string{"root"}, "no_parent": true, "no_default_policy": true,
	}); err != nil {
		return err
	}
	return root("auth/token/revoke-self", nil)
}

// A limit is a flag and the field of the listener that it sets.
type limit struct{ flag, field string }

var limits = []limit{
	{"max-json-string", "CustomMaxJSONStringValueLength"},
	{"max-json-array", "CustomMaxJSONArrayElementCount"},
	{"max-json-depth", "CustomMaxJSONDepth"},
	{"max-json-entries", "CustomMaxJSONObjectEntryCount"},
}

func (l limit) into(limits map[string]int64) func(string) error {
	return func(text string) error {
		value, err := strconv.ParseInt(text, 10, 64)
		limits[l.field] = value
		return err
	}
}

// handlerOf returns the API of `core`.
func handlerOf(core *vault.Core, s *settings) (http.Handler, error) {
	listener := &configutil.Listener{Type: "tcp", Address: s.Address}
	for field, value := range s.Limits {
		// Older releases do not have these fields.
		place := reflect.ValueOf(listener).Elem().FieldByName(field)
		if !place.IsValid() {
			return nil, fmt.Errorf("this release of Vault has no limit %s", field)
		}
		place.SetInt(value)
	}
	properties := &vault.HandlerProperties{Core: core, ListenerConfig: listener}
	switch handler := any(vaulthttp.Handler).(type) {
	// Up to Vault 1.12.
	case func(*vault.HandlerProperties) http.Handler:
		return handler(properties), nil
	case interface {
		Handler(*vault.HandlerProperties) http.Handler
	}:
		return handler.Handler(properties), nil
	}
	return nil, errors.New("this release of Vault has another kind of handler")
}
