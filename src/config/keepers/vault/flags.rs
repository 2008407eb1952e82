//! The flags of Vault and `OpenBao`.

use crate::config::flags::{
    Group,
    Takes::{Bool, OneOf, Value, Values},
    flag,
};

/// All of them, in the groups of the help.
pub(super) const GROUPS: &[Group] = &[
    (
        "Vault or OpenBao",
        &[
            flag(
                "vault-address",
                Values("URL"),
                "",
                "The server's address, https://host:port, or those of several nodes of one cluster, with commas (required)",
            ),
            flag("vault-namespace", Value("NAMESPACE"), "", "Namespace of the Transit mount"),
            flag(
                "vault-auth-namespace",
                Value("NAMESPACE"),
                "",
                "Namespace of the auth mount (default: that of --vault-namespace)",
            ),
            flag(
                "vault-key-path",
                Value("PATH"),
                "",
                "The key, <mount>/keys/<key> (required, or --transit-key)",
            ),
            flag("transit-mount", Value("MOUNT"), "transit", "Older form of the key: its mount"),
            flag("transit-key", Value("KEY"), "", "Older form of the key: its name"),
            flag(
                "vault-connection-timeout",
                Value("DURATION"),
                "30s",
                "Most time to establish a connection, within that of a request",
            ),
            flag(
                "vault-request-timeout",
                Value("DURATION"),
                "2.5s",
                "Most time for one request, within the caller's deadline",
            ),
            flag(
                "require-enterprise",
                Bool,
                "false",
                "Refuse servers without a Vault Enterprise licence",
            ),
        ],
    ),
    (
        "TLS",
        &[
            flag(
                "tls-ca-file",
                Value("FILE"),
                "",
                "PEM bundle of the only authorities to trust (default: the system's)",
            ),
            flag(
                "tls-sni",
                Value("NAME"),
                "",
                "Server name to send and to verify (default: the address's host)",
            ),
            flag("tls-skip-verify", Bool, "false", "Believe any certificate; not for production"),
            flag(
                "tls-require-pq",
                Bool,
                "false",
                "Refuse servers that agree to no hybrid post-quantum key exchange",
            ),
        ],
    ),
    (
        "Login",
        &[
            flag(
                "auth-method",
                OneOf("METHOD", &["approle"]),
                "approle",
                "The auth method; approle is the only one",
            ),
            flag("auth-mount", Value("MOUNT"), "approle", "Mount of the auth method"),
            flag(
                "approle-role-id",
                Value("ID"),
                "",
                "AppRole role ID (required, or --approle-role-id-path)",
            ),
            flag("approle-role-id-path", Value("FILE"), "", "File that holds the role ID"),
            flag(
                "approle-secret-id-path",
                Value("FILE"),
                "",
                "File that holds the AppRole secret ID (needed unless the role has bind_secret_id=false)",
            ),
            flag(
                "approle-secret-id-wrapped",
                Bool,
                "false",
                "That file holds a token that wraps the secret ID; it is unwrapped once",
            ),
            flag(
                "approle-secret-id-cache",
                Value("FILE"),
                "",
                "Keeps the unwrapped secret ID over restarts, in a 0600 file; put it on tmpfs",
            ),
            flag(
                "login-timeout",
                Value("DURATION"),
                "30s",
                "Most time for a login, a renewal or an unwrap, which no request waits for",
            ),
        ],
    ),
];
