//! Sends log lines to journald when an operator starts the process at a terminal of a systemd host.
//!
//! An entry is one datagram in journald's native protocol, with a line `NAME=value` for each field
//! (<https://systemd.io/JOURNAL_NATIVE_PROTOCOL/>).

use std::{
    env,
    fmt::{self, Debug, Write as _},
    io::{self, IsTerminal as _},
    os::unix::net::UnixDatagram,
    path::{Path, PathBuf},
};

use tracing::{
    Event, Level, Subscriber,
    field::{Field, Visit},
};
use tracing_subscriber::{
    fmt::{
        FmtContext,
        format::{FormatEvent, FormatFields, Writer},
    },
    registry::LookupSpan,
};

use super::program_name;

/// The socket of journald. It exists on a systemd host, but not in a container.
pub(super) const SOCKET: &str = "/run/systemd/journal/socket";

/// The variable that systemd sets for its services. The journal already has the output of those.
const STREAM: &str = "JOURNAL_STREAM";

/// Returns whether this process was started at a terminal of a systemd host.
pub(super) fn at_a_terminal() -> bool {
    let by_hand = io::stdout().is_terminal() && env::var_os(STREAM).is_none();
    by_hand && Path::new(SOCKET).exists()
}

/// Returns a sink that sends each entry to the socket at `path`.
///
/// # Errors
/// When the process cannot create a socket.
pub(super) fn sink(
    path: impl Into<PathBuf>,
) -> io::Result<impl FnMut(&[u8]) -> io::Result<()> + Send + 'static> {
    let (socket, path) = (UnixDatagram::unbound()?, path.into());
    // The socket is not connected, because a restarted journald has a new socket of the same name.
    Ok(move |entry: &[u8]| socket.send_to(entry, &path).map(|_sent| ()))
}

/// Writes an event as an entry of the journal.
#[derive(Debug)]
pub(super) struct Entry;

impl<S, N> FormatEvent<S, N> for Entry
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        _context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let (target, priority) = (event.metadata().target(), priority(*event.metadata().level()));
        let program = program_name::get();
        writeln!(writer, "PRIORITY={priority}\nSYSLOG_IDENTIFIER={program}\nTARGET={target}")?;
        let mut fields = Fields { writer, written: Ok(()) };
        event.record(&mut fields);
        fields.written
    }
}

/// Returns the syslog priority of a level.
const fn priority(level: Level) -> u8 {
    match level {
        Level::ERROR => 3,
        Level::WARN => 4,
        Level::INFO => 5,
        Level::DEBUG => 6,
        Level::TRACE => 7,
    }
}

struct Fields<'a> {
    writer: Writer<'a>,
    written: fmt::Result,
}

impl Fields<'_> {
    fn write(&mut self, field: &Field, value: fmt::Arguments<'_>) -> fmt::Result {
        match field.name() {
            "message" => self.writer.write_str("MESSAGE=")?,
            // The prefix avoids a clash with the field names of journald.
            name => write!(self.writer, "F_{}=", name.to_ascii_uppercase().replace('.', "_"))?,
        }
        write!(OneLine(&mut self.writer), "{value}")?;
        self.writer.write_char('\n')
    }

    fn add(&mut self, field: &Field, value: fmt::Arguments<'_>) {
        if self.written.is_ok() {
            self.written = self.write(field, value);
        }
    }
}

impl Visit for Fields<'_> {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.add(field, format_args!("{value}"));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.add(field, format_args!("{value:?}"));
    }
}

/// Writes text with a space for each line break, because a line break would start a new field.
struct OneLine<'a, 'b>(&'a mut Writer<'b>);

impl fmt::Write for OneLine<'_, '_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let mut parts = text.split('\n');
        self.0.write_str(parts.next().unwrap_or_default())?;
        parts.try_for_each(|part| write!(self.0, " {part}"))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tracing::subscriber::with_default;
    use tracing_subscriber::{layer::SubscriberExt as _, registry::Registry};

    use super::*;
    use crate::adapters::telemetry::lines::Lines;

    /// Returns a socket that stands for journald, and lines that are sent to it.
    fn journal() -> (UnixDatagram, &'static Lines) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("socket");
        let journal = UnixDatagram::bind(&path).unwrap();
        let lines = Lines::queued("test", sink(path).unwrap(), |_| ());
        lines.begin().unwrap();
        // Keeps the path, because the sink sends to it.
        let _kept = directory.keep();
        (journal, Box::leak(Box::new(lines)))
    }

    #[test]
    fn an_entry_has_a_line_for_each_field() {
        let (journal, lines) = journal();
        let layer = tracing_subscriber::fmt::layer().event_format(Entry).with_writer(move || lines);
        with_default(Registry::default().with(layer), || {
            tracing::warn!(target: "t", code = "c\nINJECTED=1", http.port = 5, "two\nlines");
        });
        let mut entry = [0; 1024];
        let count = journal.recv(&mut entry).unwrap();
        assert_eq!(
            str::from_utf8(&entry[..count]).unwrap(),
            "PRIORITY=4\nSYSLOG_IDENTIFIER=vault-kube-kms\nTARGET=t\nMESSAGE=two lines\n\
             F_CODE=c INJECTED=1\nF_HTTP_PORT=5\n"
        );
    }

    #[test]
    fn drops_entries_without_waiting_when_the_journal_does_not_read() {
        let (journal, lines) = journal();
        let entry = [b'x'; 1024];
        for _ in 0..10_000 {
            lines.push(&entry);
        }
        assert!(lines.lost() > 5_000, "{}", lines.lost());
        assert!(!lines.flush(Duration::from_millis(1)));
        journal.recv(&mut [0; 1024]).unwrap();
    }
}
