package cluster

import (
	"fmt"
	"strings"
)

// Provider is the name of the plugin in an EncryptionConfiguration.
const Provider = "vault"

// KMS returns the plugin as a provider.
func KMS(endpoint string) string { return NamedKMS(Provider, endpoint) }

// NamedKMS returns a plugin as a provider of another name.
func NamedKMS(name, endpoint string) string {
	return fmt.Sprintf("kms: {apiVersion: v2, name: %s, endpoint: %q, timeout: 3s}", name, endpoint)
}

// AESCBC returns a provider with its key in the file.
const AESCBC = "aescbc: {keys: [{name: key1, secret: MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=}]}"

// Identity returns the provider that does not encrypt.
const Identity = "identity: {}"

// Rule has the providers of some resources: the first one writes, all of them read.
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

// Encrypting returns an EncryptionConfiguration of one rule.
func Encrypting(resources string, providers ...string) string {
	return Encryption(Rule{resources, providers})
}

// Secrets returns the usual EncryptionConfiguration: the plugin encrypts Secrets, and clear objects are read.
func Secrets(endpoint string) string { return Encrypting("secrets", KMS(endpoint), Identity) }
