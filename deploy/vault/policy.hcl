# What vault-kube-kms needs on transit/keys/kubernetes, and nothing else.
# It does not grant `create`, because an encrypt request would then create a missing key. The policy
# `default` lets tokens renew and revoke themselves.

path "transit/keys/kubernetes" {
  capabilities = ["read"]
}

path "transit/encrypt/kubernetes" {
  capabilities = ["update"]
}

path "transit/decrypt/kubernetes" {
  capabilities = ["update"]
}
