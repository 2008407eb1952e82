//! Every flag there is. Its variable is `VAULT_KUBE_KMS_` and its name in capitals; its key in the
//! file is its name.

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

/// A flag.
#[must_use]
pub const fn flag(
    name: &'static str,
    takes: Takes,
    default: &'static str,
    help: &'static str,
) -> Flag {
    Flag { name, takes, default, help }
}

use Takes::{Bool, OneOf, Value, Values};

/// What `--zap-log-level` takes beside numbers.
const LEVELS: &[&str] = &["error", "warn", "info", "debug", "trace"];

/// Flags under a title of the help.
pub type Group = (&'static str, &'static [Flag]);

/// The flags that come before those of the keepers.
pub(super) const SOCKET: &[Group] = &[(
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
)];

/// The flags that come after those of the keepers.
pub(super) const COMMON: &[Group] = &[
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
