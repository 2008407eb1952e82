//! The journal, for a process that somebody started by hand on a systemd host.

use std::{env, io::IsTerminal as _, path::Path};

use tracing_subscriber::{Layer, registry::Registry};

/// Where journald listens; it is there on a systemd host, and not in a container.
const SOCKET: &str = "/run/systemd/journal/socket";

/// Set by systemd for what it starts, whose output it collects anyway.
const STREAM: &str = "JOURNAL_STREAM";

/// A layer that writes to the journal, if this process was started at a terminal of a systemd
/// host.
pub(super) fn at_a_terminal() -> Option<Box<dyn Layer<Registry> + Send + Sync>> {
    let by_hand = std::io::stdout().is_terminal() && env::var_os(STREAM).is_none();
    if !by_hand || !Path::new(SOCKET).exists() {
        return None;
    }
    let journal = tracing_journald::layer().ok()?;
    Some(journal.with_syslog_identifier("vault-kube-kms".to_owned()).boxed())
}
