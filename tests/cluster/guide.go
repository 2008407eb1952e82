package cluster

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// EnvironmentFile returns the file that a shell sources to use the cluster of a folder.
func EnvironmentFile(dir string) string { return filepath.Join(dir, "env") }

// WriteEnvironment writes a kubeconfig, and the file for a shell with paths, addresses and tokens.
func (c *Cluster) WriteEnvironment() error {
	kubeconfig := filepath.Join(c.Dir, "kubeconfig")
	if err := os.WriteFile(kubeconfig, []byte(c.kubeconfig()), 0o600); err != nil {
		return err
	}
	path := []string{c.Programs.Kubernetes, c.Programs.Etcd, filepath.Dir(c.Programs.Plugin)}
	variables := []string{
		"KUBECONFIG=" + kubeconfig, "KUBECACHEDIR=" + filepath.Join(c.Dir, "kubectl-cache"),
		"ETCDCTL_ENDPOINTS=" + c.Etcd.URL,
	}
	if c.Bao != nil {
		path = append(path, filepath.Dir(c.Programs.OpenBao))
		variables = append(variables,
			"BAO_ADDR=https://"+c.Bao.Address, "BAO_CACERT="+c.Bao.CAFile, "BAO_TOKEN="+c.Bao.Token)
	}
	var text strings.Builder
	fmt.Fprintf(&text, "export PATH=%q:$PATH\n", strings.Join(path, ":"))
	for _, variable := range variables {
		name, value, _ := strings.Cut(variable, "=")
		fmt.Fprintf(&text, "export %s=%q\n", name, value)
	}
	return os.WriteFile(EnvironmentFile(c.Dir), []byte(text.String()), 0o600)
}

// Step is a reason and a command to type.
type Step struct{ Why, Type string }

// Guide returns the commands to try on the cluster, in this order, in a shell with its environment.
func (c *Cluster) Guide() []Step {
	steps := []Step{
		{
			"write a Secret",
			"kubectl create secret generic demo --from-literal=password=correct-horse",
		},
		{
			"what etcd holds of it: the provider's name, the key id, the wrapped seed, and nothing in clear",
			"etcdctl get --print-value-only /registry/secrets/default/demo | tr -c '[:print:]' .; echo",
		},
		{"rotate the key; the new version writes after a minute (--rotation-delay)", c.rotation()},
		{
			"it is still read",
			"kubectl get secret demo -o jsonpath='{.data.password}' | base64 -d; echo",
		},
		{
			"after two minutes more: write all Secrets anew, under the new key id",
			"kubectl get secrets -A -o json | kubectl replace -f -",
		},
	}
	if c.Replicas > 1 {
		steps = append(steps, Step{"read it through the other API server", "kubectl --context=node-2 get secret demo -o yaml"})
	}
	return steps
}

func (c *Cluster) rotation() string {
	if c.Keeper == Local {
		return fmt.Sprintf("vault-kube-kms local rotate --local-key-file=%s", filepath.Join(c.Dir, "keeper", "key.json"))
	}
	return "bao write -f transit/keys/" + Key + "/rotate"
}

func (c *Cluster) kubeconfig() string {
	var clusters, users, contexts strings.Builder
	for index, node := range c.Nodes {
		name, a := fmt.Sprintf("node-%d", index+1), node.APIServer
		fmt.Fprintf(&clusters, "  - {name: %s, cluster: {server: %q, certificate-authority: %q}}\n", name, a.URL, a.CAFile)
		fmt.Fprintf(&users, "  - {name: %s, user: {token: %q}}\n", name, a.Token)
		fmt.Fprintf(&contexts, "  - {name: %s, context: {cluster: %s, user: %s}}\n", name, name, name)
	}
	return fmt.Sprintf(`apiVersion: v1
kind: Config
current-context: node-1
clusters:
%susers:
%scontexts:
%s`, &clusters, &users, &contexts)
}
