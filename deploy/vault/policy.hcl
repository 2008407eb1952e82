# What vault-kube-kms needs on transit/keys/kubernetes, and nothing else.
# `create` is left out on purpose: with it a missing key would be made anew. Tokens renew and end
# themselves by the policy `default`.

path "transit/keys/kubernetes" {
  capabilities = ["read"]
}

path "transit/encrypt/kubernetes" {
  capabilities = ["update"]
}

path "transit/decrypt/kubernetes" {
  capabilities = ["update"]
}
