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

// Rule is how some resources are encrypted: the first provider writes, all read.
type Rule struct {
	Resources string
	Providers []string
}

// Encryption is an EncryptionConfiguration.
func Encryption(rules ...Rule) string {
	var text strings.Builder
	text.WriteString("apiVersion: apiserver.config.k8s.io/v1\nkind: EncryptionConfiguration\nresources:\n")
	for _, rule := range rules {
		fmt.Fprintf(&text, "  - resources: [%q]\n    providers:\n", rule.Resources)
		for _, provider := range rule.Providers {
			fmt.Fprintf(&text, "      - %s\n", provider)
		}
	}
	return text.String()
}

// Encrypting is an EncryptionConfiguration of one rule.
func Encrypting(resources string, providers ...string) string {
	return Encryption(Rule{resources, providers})
}

// Secrets is the usual one: Secrets are encrypted by the plugin, and what is in clear is read.
func Secrets(endpoint string) string { return Encrypting("secrets", KMS(endpoint), Identity) }
