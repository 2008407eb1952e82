//! Every flag there is. Its variable is `VAULT_KUBE_KMS_` and its name in capitals; its key in the
//! file is its name.

use std::fmt::Write as _;

/// What a flag takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Takes {
    /// A value; the word names it in the help.
    Value(&'static str),
    /// `true` or `false`; bare means `true`.
    Bool,
    /// One of these values; the word names them in the help.
    OneOf(&'static str, &'static [&'static str]),
    /// A value, and may be given several times.
    Values(&'static str),
}

/// One flag.
#[derive(Clone, Copy, Debug)]
pub struct Flag {
    /// Its name, without dashes.
    pub name: &'static str,
    /// What it takes.
    pub takes: Takes,
    /// Its value when it is not given; empty where that means something else.
    pub default: &'static str,
    /// What it does.
    pub help: &'static str,
}

const fn flag(name: &'static str, takes: Takes, default: &'static str, help: &'static str) -> Flag {
    Flag { name, takes, default, help }
}

use Takes::{Bool, OneOf, Value, Values};

/// What `--zap-log-level` takes beside numbers.
const LEVELS: &[&str] = &["error", "warn", "info", "debug", "trace"];

/// All flags, in the groups of the help.
pub const GROUPS: &[(&str, &[Flag])] = &[
    (
        "Socket",
        &[
            flag(
                "listen-address",
                Value("ADDRESS"),
                "unix:///tmp/vault-kube-kms.socket",
                "Socket for the API server: unix:///path, a bare path, or unix:///@name",
            ),
            flag(
                "allowed-uid",
                Values("UID"),
                "",
                "Peer uid that may connect, beside root and this process's own. An abstract socket admits no others; a file socket admits whom its mode admits, unless this is given",
            ),
        ],
    ),
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
    (
        "Key identity and rotation",
        &[
            flag(
                "rotation-delay",
                Value("DURATION"),
                "60s",
                "Age at which a new key version begins to write, on all nodes at once",
            ),
            flag(
                "key-lineage",
                Value("NAME"),
                "",
                "Name from which key ids derive, for a key that moved (default: its place)",
            ),
            flag(
                "key-generation",
                Value("N"),
                "0",
                "Raise by one to give a key that is used again new ids",
            ),
            flag(
                "accept-key-id",
                Values("ID=VERSION"),
                "",
                "Read objects of this key id with this key version, after a re-import",
            ),
            flag(
                "legacy-decrypt",
                Bool,
                "true",
                "Also read what other Vault plugins wrapped with the same key",
            ),
        ],
    ),
    (
        "Outages",
        &[
            flag(
                "outage-policy",
                OneOf("POLICY", &["stop-writes", "keep-writing"]),
                "stop-writes",
                "What Status tells during an outage: stop-writes or keep-writing",
            ),
            flag(
                "outage-grace",
                Value("DURATION"),
                "30s",
                "How long an outage may last before Status tells it",
            ),
        ],
    ),
    (
        "Embedded keeper (one node)",
        &[
            flag(
                "keeper",
                OneOf("KEEPER", &["vault", "local"]),
                "vault",
                "Who keeps the key: vault or local",
            ),
            flag(
                "local-key-file",
                Value("FILE"),
                "/var/lib/vault-kube-kms/key.json",
                "The embedded keeper's key file",
            ),
        ],
    ),
    (
        "Probes, metrics, logs",
        &[
            flag(
                "health-port",
                Value("PORT"),
                "8081",
                "Port of /healthz and /readyz; 0 or less: off",
            ),
            flag(
                "health-address",
                Value("IP"),
                "0.0.0.0",
                "Address of /healthz and /readyz: that of the Pod or the node, or 127.0.0.1; all addresses unless given",
            ),
            flag(
                "metrics-port",
                Value("PORT"),
                "9090",
                "/metrics and /statusz on localhost; 0 or less: off",
            ),
            flag(
                "audit-log",
                Value("PLACE"),
                "",
                "Writes a line for each wrap and unwrap, without data, to this file (a path), to journal or to stdout; empty: none",
            ),
            flag(
                "audit-on-loss",
                OneOf("POLICY", &["count", "refuse"]),
                "count",
                "When an entry of --audit-log is lost: count it, or refuse calls until entries can be written again",
            ),
            flag("disable-runtime-metrics", Bool, "false", "Leave the process's own metrics out"),
            flag(
                "zap-log-level",
                OneOf("LEVEL", LEVELS),
                "info",
                "error, warn, info, debug, trace, or a number (4 warn, 5 debug, 6 trace)",
            ),
            flag("log-level", OneOf("LEVEL", LEVELS), "", "Older form of --zap-log-level"),
            flag(
                "otlp-endpoint",
                Value("URL"),
                "",
                "Collector to send traces to by OTLP over gRPC: http://HOST:PORT; empty: none",
            ),
        ],
    ),
    (
        "Sandbox",
        &[flag(
            "no-sandbox",
            Bool,
            "false",
            "Do not restrict the process to the files, ports and system calls that it needs",
        )],
    ),
    (
        "Configuration",
        &[
            flag(
                "config",
                Value("FILE"),
                "",
                "TOML file with these names as keys; flags and variables win",
            ),
            flag(
                "output",
                OneOf("FORM", &["text", "json"]),
                "text",
                "What check prints, text or json. It exits with 0 (PASS), 1 (WARN) or 2 (FAIL)",
            ),
        ],
    ),
];

/// The flag of that name.
#[must_use]
pub fn find(name: &str) -> Option<&'static Flag> {
    all().find(|flag| flag.name == name)
}

/// All flags.
pub fn all() -> impl Iterator<Item = &'static Flag> {
    GROUPS.iter().flat_map(|(_, flags)| flags.iter())
}

/// The flag whose name comes closest to `name`, if any comes close.
#[must_use]
pub fn nearest(name: &str) -> Option<&'static str> {
    all()
        .map(|flag| (strsim::damerau_levenshtein(name, flag.name), flag.name))
        .min()
        .filter(|(distance, _)| *distance <= 3)
        .map(|(_, name)| name)
}

/// The help on all flags, in groups, with defaults.
#[must_use]
pub fn help() -> String {
    let mut text = String::new();
    for (group, flags) in GROUPS {
        let _infallible = write!(text, "\n{group}:\n");
        for flag in *flags {
            let takes = match flag.takes {
                Value(word) | Values(word) | OneOf(word, _) => format!(" {word}"),
                Bool => String::new(),
            };
            let several = if matches!(flag.takes, Values(_)) { " (repeatable)" } else { "" };
            let default = match flag.default {
                "" => String::new(),
                default => format!(" [{default}]"),
            };
            let _infallible =
                write!(text, "  --{}{takes}\n        {}{several}{default}\n", flag.name, flag.help);
        }
    }
    text
}
