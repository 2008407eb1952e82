variable "mount" {
  description = "Mount of the Transit engine."
  type        = string
  default     = "transit"
}

variable "key" {
  description = "Name of the key."
  type        = string
  default     = "kubernetes"
}

variable "auth_mount" {
  description = "Mount of AppRole."
  type        = string
  default     = "approle"
}

variable "role" {
  description = "Name of the roles and of the policy."
  type        = string
  default     = "vault-kube-kms"
}

variable "token_ttl" {
  description = "How long a token lives until it is renewed, in seconds."
  type        = number
  default     = 3600
}

variable "cidrs" {
  description = "Networks from which the roles may log in; all, where none is given."
  type        = list(string)
  default     = []
}

variable "jwt" {
  description = "Who may log in by a JWT, and whose signature counts: by jwks_url, or by public keys in PEM."
  type = object({
    issuer      = string
    audience    = string
    subject     = string
    jwks_url    = optional(string)
    public_keys = optional(list(string))
  })
  default = null
}

variable "certificate" {
  description = "Who may log in by a client certificate: the authority in PEM, and the common names."
  type = object({
    authority    = string
    common_names = list(string)
  })
  default = null
}
