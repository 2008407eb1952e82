# Issues secret IDs of the role vault-kube-kms, each wrapped for ten minutes at most.
path "auth/approle/role/vault-kube-kms/secret-id" {
  capabilities = ["update"]
  min_wrapping_ttl = "1s"
  max_wrapping_ttl = "10m"
}
