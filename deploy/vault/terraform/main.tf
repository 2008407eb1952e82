# The keeper's side of vault-kube-kms: the Transit engine, the key, the policy, and the roles to log in with.
#
# It makes no secret ID, because that would stay in the state file. Make one for each node, as docs/operations.md says.

locals {
  # The policy that `vault-kube-kms policy` prints, for these names.
  policy = replace(
    file("${path.module}/../policy.hcl"), "/transit/([a-z]+)/kubernetes/", "${var.mount}/$1/${var.key}"
  )
  issuer_policy = replace(
    file("${path.module}/../policy-issuer.hcl"), "auth/approle/role/vault-kube-kms/",
    "auth/${var.auth_mount}/role/${var.role}/"
  )
}

resource "vault_mount" "transit" {
  path = var.mount
  type = "transit"

  lifecycle {
    # The end of the mount would delete its keys, and no object could be decrypted any more.
    prevent_destroy = true
  }
}

resource "vault_transit_secret_backend_key" "key" {
  backend = vault_mount.transit.path
  name    = var.key
  type    = "aes256-gcm96"

  lifecycle {
    prevent_destroy = true
    # Raise it by hand after everything is written with a newer version.
    ignore_changes = [min_decryption_version]
  }
}

resource "vault_policy" "use" {
  name   = var.role
  policy = local.policy
}

resource "vault_auth_backend" "approle" {
  path = var.auth_mount
  type = "approle"
}

resource "vault_approle_auth_backend_role" "node" {
  backend               = vault_auth_backend.approle.path
  role_name             = var.role
  token_policies        = [vault_policy.use.name]
  token_ttl             = var.token_ttl
  token_bound_cidrs     = var.cidrs
  secret_id_bound_cidrs = var.cidrs
}

# For the issuer of wrapped secret IDs.
resource "vault_policy" "issuer" {
  name   = "${var.role}-issuer"
  policy = local.issuer_policy
}

resource "vault_jwt_auth_backend" "jwt" {
  count        = var.jwt == null ? 0 : 1
  path         = "jwt"
  bound_issuer = var.jwt.issuer
  jwks_url     = var.jwt.jwks_url
  # The server returns them without the final line break, which would be a change in each plan.
  jwt_validation_pubkeys = var.jwt.public_keys == null ? null : [for key in var.jwt.public_keys : trimspace(key)]
}

resource "vault_jwt_auth_backend_role" "node" {
  count             = var.jwt == null ? 0 : 1
  backend           = vault_jwt_auth_backend.jwt[0].path
  role_name         = var.role
  role_type         = "jwt"
  user_claim        = "sub"
  bound_audiences   = [var.jwt.audience]
  bound_subject     = var.jwt.subject
  token_policies    = [vault_policy.use.name]
  token_ttl         = var.token_ttl
  token_bound_cidrs = var.cidrs
}

resource "vault_auth_backend" "cert" {
  count = var.certificate == null ? 0 : 1
  type  = "cert"
}

resource "vault_cert_auth_backend_role" "node" {
  count                = var.certificate == null ? 0 : 1
  backend              = vault_auth_backend.cert[0].path
  name                 = var.role
  certificate          = var.certificate.authority
  allowed_common_names = var.certificate.common_names
  token_policies       = [vault_policy.use.name]
  token_ttl            = var.token_ttl
  token_bound_cidrs    = var.cidrs
}
