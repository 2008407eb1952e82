output "flags" {
  description = "Flags of vault-kube-kms; --vault-address, --tls-ca-file and --approle-secret-id-path are missing."
  value = [
    "--vault-key-path=${vault_mount.transit.path}/keys/${vault_transit_secret_backend_key.key.name}",
    "--auth-mount=${vault_auth_backend.approle.path}",
    "--approle-role-id=${vault_approle_auth_backend_role.node.role_id}",
  ]
}
