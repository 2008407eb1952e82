//! The audit log: one JSON line for each wrap and each unwrap.

use std::{
    collections::BTreeMap,
    fmt,
    io::{self, Write as _},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use serde_json::{Value, json};
use tracing::warn;

use super::{audit_file::AuditFile, lines::Lines, outlets::Outlet, program_name, text::printable};
use crate::{
    adapters::rfc3339,
    domain::{
        error::{Code, KmsError},
        time::UnixTime,
    },
    ports::{
        audit::{Audit, Entry, Outcome},
        clock::Clock,
    },
};

/// The longest key id that an entry holds, in characters. The provider's own key ids are shorter.
const KEY_ID_MAX: usize = 128;

/// The longest request id of the keeper that an entry holds, in characters. A UUID has 36.
const REQUEST_ID_MAX: usize = 64;

/// Where the audit log goes (`--audit-log`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AuditPlace {
    /// Appends to this file.
    File(PathBuf),
    /// Sends to the journal, under the identifier `vault-kube-kms-audit`.
    Journal,
    /// Writes to standard output, between the lines of the log.
    Stdout,
}

/// What the provider does with a call when an entry is lost (`--audit-on-loss`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnLoss {
    /// Counts the loss and answers the call.
    Count,
    /// Refuses the call, and all calls after it until an entry is written again.
    Refuse,
}

impl AuditPlace {
    /// Reads an absolute path, `journal` or `stdout`. Returns `None` for an empty text.
    ///
    /// # Errors
    /// Any other text. The error says what to write instead.
    pub fn parse(text: &str) -> Result<Option<Self>, String> {
        match text {
            "" => Ok(None),
            "journal" => Ok(Some(Self::Journal)),
            "stdout" => Ok(Some(Self::Stdout)),
            _ if text.starts_with('/') => Ok(Some(Self::File(text.into()))),
            _ => Err(format!(
                "{text:?} is not a valid place; write an absolute path, journal or stdout"
            )),
        }
    }
}

impl OnLoss {
    /// Reads `count` or `refuse`.
    ///
    /// # Errors
    /// Any other text. The error says what to write instead.
    pub fn parse(text: &str) -> Result<Self, String> {
        match text {
            "count" => Ok(Self::Count),
            "refuse" => Ok(Self::Refuse),
            _ => Err(format!("{text:?} is not a valid policy; write count or refuse")),
        }
    }
}

/// Writes the audit log and counts the entries that it lost.
pub struct AuditLog {
    lines: Lines,
    place: AuditPlace,
    on_loss: OnLoss,
    clock: Arc<dyn Clock>,
}

impl AuditLog {
    /// Opens `place`. Entries wait in a queue until [`AuditLog::begin`].
    ///
    /// # Errors
    /// When `place` cannot be opened.
    pub fn open(place: AuditPlace, on_loss: OnLoss, clock: Arc<dyn Clock>) -> io::Result<Self> {
        let report = |dropped| {
            warn!(dropped, "audit entries were dropped: they came faster than they were written");
        };
        let lines = match &place {
            AuditPlace::File(path) => {
                let mut file = AuditFile::open(path)?;
                Lines::queued("audit", move |line| file.append(line), report)
            }
            AuditPlace::Journal => Outlet::Journal.open()?.counted_apart(),
            AuditPlace::Stdout => Outlet::Stdout.open()?.counted_apart(),
        };
        Ok(Self { lines, place, on_loss, clock })
    }

    /// Starts the thread that writes the entries.
    ///
    /// # Errors
    /// When the thread cannot be started.
    pub fn begin(&self) -> io::Result<()> {
        self.lines.begin()
    }

    /// Waits until all entries are written, for at most `bound`.
    pub fn flush(&self, bound: Duration) {
        let _written = self.lines.flush(bound);
    }

    /// Returns the number of entries that were lost since the start.
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.lines.lost()
    }

    fn failing(&self) -> KmsError {
        KmsError::new(
            Code::AuditLogFailing,
            format!("the audit log ({}) cannot be written, or only too slowly", self.place),
            "free space at its place and check its mode, or give --audit-on-loss=count",
        )
    }

    fn line(&self, entry: &Entry<'_>) -> Vec<u8> {
        let text = fields(entry, self.clock.wall()).to_string();
        let mut line = Vec::with_capacity(text.len().saturating_add(80));
        let _into_memory = match self.place {
            AuditPlace::Journal => {
                let program = program_name::get();
                write!(line, "PRIORITY=6\nSYSLOG_IDENTIFIER={program}-audit\nMESSAGE={text}\n")
            }
            AuditPlace::File(_) | AuditPlace::Stdout => writeln!(line, "{text}"),
        };
        line
    }
}

impl Audit for AuditLog {
    fn record(&self, entry: &Entry<'_>) -> Result<(), KmsError> {
        let refuses = self.on_loss == OnLoss::Refuse;
        if !refuses || !self.lines.is_failing() {
            let queued = self.lines.push(&self.line(entry));
            return if queued || !refuses { Ok(()) } else { Err(self.failing()) };
        }
        // The line that ends the failure is one of a refused call.
        let refusal = self.failing();
        let outcome = match entry.outcome {
            Outcome::Done => Outcome::Failed(&refusal),
            other => other,
        };
        let _queued = self.lines.push(&self.line(&Entry { outcome, ..*entry }));
        Err(refusal)
    }
}

impl fmt::Debug for AuditLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AuditLog").field("place", &self.place).finish_non_exhaustive()
    }
}

impl fmt::Display for AuditPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => path.display().fmt(f),
            Self::Journal => f.write_str("journal"),
            Self::Stdout => f.write_str("stdout"),
        }
    }
}

/// Returns the fields of a line. Fields without a value are left out.
fn fields(entry: &Entry<'_>, now: UnixTime) -> Value {
    let caller = entry.caller;
    let outcome = match entry.outcome {
        Outcome::Done => "ok",
        Outcome::Failed(error) => error.code().as_str(),
        Outcome::Abandoned => "abandoned",
    };
    let request_id = entry.request_id.map(|id| printable(id, REQUEST_ID_MAX));
    let all = [
        ("audit", json!(entry.method.as_str())),
        ("time", json!(rfc3339::millis(now))),
        ("uid", json!(printable(entry.uid, super::text::UID_MAX))),
        ("key_id", json!(printable(entry.key_id, KEY_ID_MAX))),
        ("outcome", json!(outcome)),
        ("elapsed_ms", json!(entry.elapsed.as_secs_f64() * 1_000.0)),
        ("peer_uid", json!(caller.map(|caller| caller.uid))),
        ("peer_gid", json!(caller.map(|caller| caller.gid))),
        ("peer_pid", json!(caller.and_then(|caller| caller.pid))),
        ("keeper_request_id", json!(request_id)),
    ];
    let given = all.into_iter().filter(|(_, value)| !value.is_null());
    given.collect::<BTreeMap<_, _>>().into_iter().collect()
}

#[cfg(test)]
mod tests {
    use std::{fs, sync::Mutex};

    use super::*;
    use crate::{
        adapters::telemetry::audit_file::tests::directory,
        ports::{audit::Caller, clock::MockClock, telemetry::Method},
    };

    fn clock() -> Arc<dyn Clock> {
        let mut clock = MockClock::new();
        clock.expect_wall().return_const(UnixTime::from_millis(1_700_000_000_123));
        Arc::new(clock)
    }

    const ENTRY: Entry<'static> = Entry {
        method: Method::Decrypt,
        uid: "a\nb",
        key_id: "v1.x",
        caller: Some(Caller { uid: 0, gid: 1, pid: Some(2) }),
        elapsed: Duration::from_micros(1_500),
        outcome: Outcome::Done,
        request_id: None,
    };

    #[test]
    fn an_entry_is_one_line_of_json_without_any_data() {
        let (_kept, path) = directory();
        let log = AuditLog::open(AuditPlace::File(path.clone()), OnLoss::Refuse, clock()).unwrap();
        let error = KmsError::new(Code::KeyIdUnknown, "canary", "canary");
        log.record(&ENTRY).unwrap();
        log.record(&Entry {
            outcome: Outcome::Failed(&error),
            caller: None,
            request_id: Some("r\n1"),
            ..ENTRY
        })
        .unwrap();
        log.flush(Duration::from_mins(1));
        assert_eq!(
            fs::read_to_string(path).unwrap(),
            "{\"audit\":\"Decrypt\",\"elapsed_ms\":1.5,\"key_id\":\"v1.x\",\"outcome\":\"ok\",\
             \"peer_gid\":1,\"peer_pid\":2,\"peer_uid\":0,\"time\":\"2023-11-14T22:13:20.123Z\",\
             \"uid\":\"a?b\"}\n\
             {\"audit\":\"Decrypt\",\"elapsed_ms\":1.5,\"keeper_request_id\":\"r?1\",\
             \"key_id\":\"v1.x\",\"outcome\":\"key-id-unknown\",\
             \"time\":\"2023-11-14T22:13:20.123Z\",\"uid\":\"a?b\"}\n"
        );
    }

    #[test]
    fn refuses_calls_or_counts_the_loss_when_entries_cannot_be_written() {
        for (on_loss, refused) in [(OnLoss::Refuse, true), (OnLoss::Count, false)] {
            let place = AuditPlace::File("/dev/full".into());
            let mut file = fs::OpenOptions::new().append(true).open("/dev/full").unwrap();
            let lines = Lines::queued("test", move |line| file.write_all(line), |_| ());
            let log = AuditLog { lines, place, on_loss, clock: clock() };
            // The first entry is queued before the writer thread has failed for the first time.
            log.record(&ENTRY).unwrap();
            log.flush(Duration::from_mins(1));
            let outcome = log.record(&ENTRY);
            assert_eq!(
                outcome.map_err(|error| error.code()).err(),
                refused.then_some(Code::AuditLogFailing)
            );
            log.flush(Duration::from_mins(1));
            assert_eq!(log.lost(), 2);
            // As for `journal` and `stdout`, where the lines of the log use the same queue.
            let apart = AuditLog { lines: log.lines.counted_apart(), ..log };
            let _refused = apart.record(&ENTRY);
            apart.flush(Duration::from_mins(1));
            assert_eq!(apart.lost(), 1);
        }
    }

    /// The line that ends the failure is written, and its caller got no answer.
    #[test]
    fn the_line_of_a_refused_call_does_not_say_ok() {
        let written = Arc::new(Mutex::new(Vec::new()));
        let (into, mut writes) = (Arc::clone(&written), 0);
        let write = move |line: &[u8]| {
            writes += 1;
            if writes == 1 {
                return Err(io::Error::from(io::ErrorKind::StorageFull));
            }
            into.lock().unwrap().push(String::from_utf8(line.to_vec()).unwrap());
            Ok(())
        };
        let lines = Lines::queued("test", write, |_| ());
        let place = AuditPlace::Stdout;
        let log = AuditLog { lines, place, on_loss: OnLoss::Refuse, clock: clock() };
        log.record(&ENTRY).unwrap();
        log.flush(Duration::from_mins(1));
        assert_eq!(log.record(&ENTRY).unwrap_err().code(), Code::AuditLogFailing);
        log.flush(Duration::from_mins(1));
        log.record(&ENTRY).unwrap();
        log.flush(Duration::from_mins(1));
        let written = written.lock().unwrap();
        let outcomes = ["audit-log-failing", "ok"];
        assert_eq!(written.len(), outcomes.len());
        for (line, outcome) in written.iter().zip(outcomes) {
            assert!(line.contains(&format!("\"outcome\":\"{outcome}\"")), "{line}");
        }
    }
}
