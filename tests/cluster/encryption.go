package cluster

import (
	"fmt"
	"strings"
)

// Provider is the name under which the plugin stands in an EncryptionConfiguration.
const Provider = "vault"

// KMS is the plugin as a provider.
func KMS(endpoint string) string { return NamedKMS(Provider, endpoint) }

// NamedKMS is a plugin as a provider of another name.
func NamedKMS(name, endpoint string) string {
	return fmt.Sprintf("kms: {apiVersion: v2, name: %s, endpoint: %q, timeout: 3s}", name, endpoint)
}

// AESCBC is a provider whose key stands in the file itself.
const AESCBC = "aescbc: {keys: [{name: key1, secret: MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=}]}"

// Identity is the provider that encrypts nothing.
const Identity = "identity: {}"

// Encrypting is an EncryptionConfiguration for resources: the first provider writes, all read.
func Encrypting(resources string, providers ...string) string {
	return fmt.Sprintf(`apiVersion: apiserver.config.k8s.io/v1
kind: EncryptionConfiguration
resources:
  - resources: [%q]
    providers:
      - %s
`, resources, strings.Join(providers, "\n      - "))
}

// Secrets is the usual one: Secrets are encrypted by the plugin, and what is in clear is read.
func Secrets(endpoint string) string { return Encrypting("secrets", KMS(endpoint), Identity) }
