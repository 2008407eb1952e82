//! The flags that every program has. The variable of a flag is `VAULT_KUBE_KMS_` and the flag's
//! name in capitals. Its key in the file is its name.

/// The values that a flag accepts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Takes {
    /// Any value. The word names it in the help.
    Value(&'static str),
    /// `true` or `false`. A flag without a value means `true`.
    Bool,
    /// One of these values. The word names them in the help.
    OneOf(&'static str, &'static [&'static str]),
    /// Any value. The flag may be given several times.
    Values(&'static str),
}

/// One flag.
#[derive(Clone, Copy, Debug)]
pub struct Flag {
    /// The flag's name, without dashes.
    pub name: &'static str,
    /// The values that the flag accepts.
    pub takes: Takes,
    /// The value when the flag is not given. May be empty.
    pub default: &'static str,
    /// What the flag does.
    pub help: &'static str,
}

/// Returns a flag.
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

/// The levels of `--zap-log-level`. It also accepts numbers.
const LEVELS: &[&str] = &["error", "warn", "info", "debug", "trace"];

/// A title of the help, and the flags under it.
pub type Group = (&'static str, &'static [Flag]);

/// The flags that come before the flags of the keepers.
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
            "A uid that may connect, in addition to root and the uid of this process. An abstract socket always rejects other uids. A file socket does so only when this flag is given; otherwise its mode decides",
        ),
    ],
)];

/// The flags that come after the flags of the keepers.
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
                "Name from which key ids are derived, for a key that was moved (default: the place of the key)",
            ),
            flag(
                "key-generation",
                Value("N"),
                "0",
                "Raise this by one when an older key is used again, so that it gets new key ids",
            ),
            flag(
                "accept-key-id",
                Values("ID=VERSION"),
                "",
                "Decrypt objects of this key id with this key version, after a re-import",
            ),
            flag(
                "legacy-decrypt",
                Bool,
                "true",
                "Also decrypt objects that other Vault plugins wrote with the same key",
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
                "What Status answers during an outage: stop-writes or keep-writing",
            ),
            flag(
                "outage-grace",
                Value("DURATION"),
                "30s",
                "How long an outage may last before Status reports it",
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
                "Address of /healthz and /readyz: the address of the Pod or the node, or 127.0.0.1; the default is all addresses",
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
                "Write one line for each wrap and unwrap, without data, to a file (its path), to journal or to stdout; empty: off",
            ),
            flag(
                "audit-on-loss",
                OneOf("POLICY", &["count", "refuse"]),
                "count",
                "When an entry of --audit-log is lost: count the loss, or refuse calls until entries can be written again",
            ),
            flag(
                "disable-runtime-metrics",
                Bool,
                "false",
                "Leave out the metrics of the process itself",
            ),
            flag(
                "zap-log-level",
                OneOf("LEVEL", LEVELS),
                "info",
                "error, warn, info, debug, trace, or a number (4 warn, 5 debug, 6 trace)",
            ),
            flag("log-level", OneOf("LEVEL", LEVELS), "", "Older form of --zap-log-level"),
            flag(
                "zap-encoder",
                OneOf("FORMAT", &["json", "console"]),
                "json",
                "Format of the log lines on standard output",
            ),
            flag("zap-devel", Bool, "false", "Accepted and ignored"),
            flag("zap-stacktrace-level", Value("LEVEL"), "", "Accepted and ignored"),
            flag("zap-time-encoding", Value("ENCODING"), "", "Accepted and ignored"),
            flag(
                "otlp-endpoint",
                Value("URL"),
                "",
                "Collector that receives traces by OTLP over gRPC: http://HOST:PORT; empty: off",
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
