#!/bin/sh
# Makes what vault-kube-kms needs at Vault or OpenBao: the Transit engine, the key, the policy, and an
# AppRole. It is safe to run it again: it keeps mounts, key and role, writes the policy again, and makes a
# further secret ID.
#
# usage: setup.sh DIRECTORY
#
# Writes role-id and a new secret-id for a node to DIRECTORY, mode 0400. The variables of the CLI name the
# server and its namespace (VAULT_ADDR, VAULT_TOKEN, VAULT_NAMESPACE; or BAO_…).
# Settings, as variables:
#   CLI        vault     the program: vault or bao
#   MOUNT      transit   mount of the Transit engine
#   KEY        kubernetes
#   ROLE       vault-kube-kms    name of the AppRole and of the policy
#   AUTH_MOUNT approle   mount of the AppRole
#   TOKEN_TTL  1h
#   CIDRS      (none)    networks from which the role may log in, with commas between them
#   WRAP_TTL   (none)    such as 10m: secret-id holds a token that wraps the secret ID, for
#                        --approle-secret-id-wrapped; the policy ROLE-issuer is for the issuer of more
set -eu
umask 077
directory=$1
cli=${CLI:-vault} mount=${MOUNT:-transit} key=${KEY:-kubernetes} role=${ROLE:-vault-kube-kms}
auth=${AUTH_MOUNT:-approle} wrap=${WRAP_TTL:-}

have() { "$cli" "$1" list -format=json | grep -qF "\"$2/\""; }
# Prints a policy of this folder with the chosen names. It replaces whole paths only: in a folder that
# `vault-kube-kmsctl init` wrote, the policy has the names already.
policy() {
    sed -e "s|\"transit/\([a-z]*\)/kubernetes\"|\"$mount/\1/$key\"|" \
        -e "s| transit/keys/kubernetes,| $mount/keys/$key,|" \
        -e "s|\"auth/approle/role/vault-kube-kms/|\"auth/$auth/role/$role/|" "$(dirname "$0")/$1"
}

have secrets "$mount" || "$cli" secrets enable -path="$mount" transit
have auth "$auth" || "$cli" auth enable -path="$auth" approle
# Keeps an existing key and its settings.
"$cli" read "$mount/keys/$key" >/dev/null 2>&1 ||
    "$cli" write -f "$mount/keys/$key" type=aes256-gcm96
text=$(policy policy.hcl)
printf '%s\n' "$text" | "$cli" policy write "$role" -
"$cli" read "auth/$auth/role/$role" >/dev/null 2>&1 ||
    "$cli" write "auth/$auth/role/$role" token_policies="$role" token_ttl="${TOKEN_TTL:-1h}" \
        token_max_ttl=0 token_bound_cidrs="${CIDRS:-}" secret_id_bound_cidrs="${CIDRS:-}"
if [ -n "$wrap" ]; then
    text=$(policy policy-issuer.hcl)
    printf '%s\n' "$text" | "$cli" policy write "$role-issuer" -
fi

mkdir -p "$directory"
for name in role-id secret-id; do
    rm -f "$directory/$name"
done
"$cli" read -field=role_id "auth/$auth/role/$role/role-id" >"$directory/role-id"
if [ -n "$wrap" ]; then
    "$cli" write -f -wrap-ttl="$wrap" -field=wrapping_token "auth/$auth/role/$role/secret-id"
else
    "$cli" write -f -field=secret_id "auth/$auth/role/$role/secret-id"
fi >"$directory/secret-id"
chmod 0400 "$directory/role-id" "$directory/secret-id"
echo "$directory: role-id and secret-id are written; give them to the user of vault-kube-kms"
