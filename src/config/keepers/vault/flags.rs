//! The flags of Vault and `OpenBao`.

use crate::config::flags::{
    Flag, Group,
    Takes::{Bool, OneOf, Value, Values},
    flag,
};

/// Returns the flags that only one auth method has, with the name of the method.
pub(super) fn of_methods() -> impl Iterator<Item = (&'static str, &'static [Flag])> {
    let title = "Login with --auth-method=";
    GROUPS.iter().filter_map(move |(group, flags)| Some((group.strip_prefix(title)?, *flags)))
}

/// The flags, in the groups of the help.
pub(super) const GROUPS: &[Group] = &[
    (
        "Vault or OpenBao",
        &[
            flag(
                "vault-address",
                Values("URL"),
                "",
                "The server's address, https://host:port, or the addresses of several nodes of one cluster, with commas (required)",
            ),
            flag("vault-namespace", Value("NAMESPACE"), "", "Namespace of the Transit mount"),
            flag(
                "vault-auth-namespace",
                Value("NAMESPACE"),
                "",
                "Namespace of the auth mount (default: the value of --vault-namespace)",
            ),
            flag(
                "vault-key-path",
                Value("PATH"),
                "",
                "The key, <mount>/keys/<key> (required, or --transit-key)",
            ),
            flag(
                "transit-mount",
                Value("MOUNT"),
                "transit",
                "Older form of --vault-key-path: the mount of the key",
            ),
            flag(
                "transit-key",
                Value("KEY"),
                "",
                "Older form of --vault-key-path: the name of the key",
            ),
            flag(
                "vault-connection-timeout",
                Value("DURATION"),
                "30s",
                "Longest time to establish a connection, within the time of a request",
            ),
            flag(
                "vault-request-timeout",
                Value("DURATION"),
                "2.5s",
                "Longest time for one request, within the caller's deadline",
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
                "PEM bundle of the only authorities to trust (default: the authorities of the system)",
            ),
            flag(
                "tls-client-cert-file",
                Value("FILE"),
                "",
                "PEM file with the client certificate and then its chain, for servers that want one",
            ),
            flag(
                "tls-client-key-file",
                Value("FILE"),
                "",
                "PEM file with the private key of the client certificate (default: the file of --tls-client-cert-file)",
            ),
            flag(
                "tls-client-key-password-file",
                Value("FILE"),
                "",
                "File that holds the password of the private key, if the key is encrypted",
            ),
            flag(
                "tls-sni",
                Value("NAME"),
                "",
                "Server name to send and to verify (default: the host of the address)",
            ),
            flag(
                "tls-skip-verify",
                Bool,
                "false",
                "INSECURE: accept any certificate; not for production",
            ),
            flag(
                "tls-require-pq",
                Bool,
                "false",
                "Refuse servers without a hybrid post-quantum key exchange",
            ),
        ],
    ),
    (
        "Login",
        &[
            flag(
                "auth-method",
                OneOf("METHOD", &["approle", "jwt", "kubernetes", "cert", "spiffe", "token-file"]),
                "approle",
                "How to log in: approle, jwt, kubernetes, cert, spiffe or token-file",
            ),
            flag(
                "auth-mount",
                Value("MOUNT"),
                "",
                "Mount of the auth method (default: the name of the method; with spiffe jwt or cert, by --spiffe-svid)",
            ),
            flag(
                "login-timeout",
                Value("DURATION"),
                "30s",
                "Longest time for a login, a renewal or an unwrap of a credential. It does not extend the deadline of a call",
            ),
        ],
    ),
    (
        "Login with --auth-method=approle",
        &[
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
                "The file of --approle-secret-id-path holds a wrapping token of the secret ID, which is unwrapped once",
            ),
            flag(
                "approle-secret-id-cache",
                Value("FILE"),
                "",
                "Keep the unwrapped secret ID over restarts in this file, mode 0600; put it on tmpfs",
            ),
        ],
    ),
    (
        "Login with --auth-method=jwt",
        &[
            flag(
                "jwt-path",
                Value("FILE"),
                "",
                "File that holds the JWT; it is read again before each login (required with this method)",
            ),
            flag(
                "jwt-role",
                Value("ROLE"),
                "",
                "Role of the auth mount (default: the mount's default_role)",
            ),
        ],
    ),
    (
        "Login with --auth-method=kubernetes",
        &[
            flag(
                "kubernetes-jwt-path",
                Value("FILE"),
                "/var/run/secrets/kubernetes.io/serviceaccount/token",
                "File that holds the token of a service account of another cluster",
            ),
            flag(
                "kubernetes-role",
                Value("ROLE"),
                "",
                "Role of the auth mount (required with this method)",
            ),
        ],
    ),
    (
        "Login with --auth-method=cert",
        &[flag(
            "cert-role",
            Value("ROLE"),
            "",
            "Role of the auth mount (default: the server selects the role by the certificate)",
        )],
    ),
    (
        "Login with --auth-method=spiffe",
        &[
            flag(
                "spiffe-socket",
                Value("SOCKET"),
                "",
                "Socket of the SPIFFE Workload API, unix:///path (required with this method)",
            ),
            flag(
                "spiffe-id",
                Value("ID"),
                "",
                "SPIFFE ID to use (default: the first one that the agent gives to this process)",
            ),
            flag(
                "spiffe-svid",
                OneOf("FORM", &["jwt", "x509"]),
                "jwt",
                "Form of the identity: a JWT-SVID for a mount of the method jwt, or an X.509-SVID for a mount of the method cert. An X.509-SVID needs a common name, which SPIRE sets from a DNS name of the registration entry",
            ),
            flag(
                "spiffe-audience",
                Value("AUDIENCE"),
                "",
                "Audience of the JWT-SVID, one of bound_audiences of the role (required with --spiffe-svid=jwt)",
            ),
            flag(
                "spiffe-role",
                Value("ROLE"),
                "",
                "Role of the auth mount (default: the default_role of a jwt mount; a cert mount selects one by the certificate)",
            ),
        ],
    ),
    (
        "Login with --auth-method=token-file",
        &[
            flag(
                "token-file",
                Value("FILE"),
                "",
                "File to which another program writes a token, such as the sink of an agent (required with this method)",
            ),
            flag(
                "token-file-wrapped",
                Bool,
                "false",
                "The file of --token-file holds a wrapping token of the token, which is unwrapped once",
            ),
            flag(
                "token-file-renew",
                Bool,
                "false",
                "Renew the token. Without this flag, the program that writes the file renews it",
            ),
        ],
    ),
];
