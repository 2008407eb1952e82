//! Tests of the queue of lines. The sink of most tests waits for permission before each line.

use std::{
    io::{BufRead as _, BufReader},
    sync::mpsc::{Receiver, Sender, channel},
};

use rustix::fs::{OFlags, fcntl_setfl};

use super::*;

/// Long enough for any machine. The expected event ends the wait earlier.
const AMPLE: Duration = Duration::from_mins(2);
const SHORT: Duration = Duration::from_millis(10);

/// Returns a queue that writes one line for each message from `Sender`. The first `Receiver` gets
/// the written lines, the second one the reported numbers of dropped lines.
fn gated() -> (Lines, Sender<()>, Receiver<Vec<u8>>, Receiver<u64>) {
    let (open, gate) = channel();
    let (written, out) = channel();
    let (report, reports) = channel();
    let sink = move |line: &[u8]| {
        gate.recv().map_err(io::Error::other)?;
        written.send(line.to_vec()).map_err(io::Error::other)
    };
    let lines = Lines::queued("test", sink, move |dropped| report.send(dropped).unwrap());
    lines.begin().unwrap();
    (lines, open, out, reports)
}

#[test]
fn lines_wait_until_the_thread_is_started_or_a_flush_starts_it() {
    for begin in [true, false] {
        let (written, out) = channel();
        let sink = move |line: &[u8]| written.send(line.to_vec()).map_err(io::Error::other);
        let lines = Lines::queued("test", sink, |_| ());
        lines.push(b"1");
        assert!(out.recv_timeout(SHORT).is_err(), "no thread writes yet");
        if begin {
            lines.begin().unwrap();
            lines.begin().unwrap();
        }
        assert!(lines.flush(AMPLE));
        assert_eq!(out.recv().unwrap(), b"1");
    }
}

#[test]
fn writes_lines_in_order_and_flush_waits_for_them() {
    let (lines, open, out, _reports) = gated();
    for line in [b"1", b"2", b"3"] {
        lines.push(line);
    }
    assert!(!lines.flush(SHORT), "nothing is written yet");
    for _ in 0..3 {
        open.send(()).unwrap();
    }
    assert!(lines.flush(AMPLE));
    assert_eq!(out.try_iter().collect::<Vec<_>>(), [b"1", b"2", b"3"]);
    assert_eq!(lines.lost(), 0);
}

#[test]
fn drops_and_counts_lines_that_do_not_fit_and_reports_them_once_there_is_room() {
    let (lines, open, out, reports) = gated();
    let line = vec![b'x'; 1024 - LINE_OVERHEAD];
    let fit = BYTES_MAX / 1024;
    for _ in 0..fit + 5 {
        lines.push(&line);
    }
    assert_eq!(lines.lost(), 5);
    for _ in 0..fit / 2 - 1 {
        open.send(()).unwrap();
        out.recv_timeout(AMPLE).unwrap();
    }
    assert!(reports.try_recv().is_err(), "less than half of the queue is free");
    for _ in fit / 2 - 1..fit {
        open.send(()).unwrap();
    }
    assert_eq!(reports.recv_timeout(AMPLE), Ok(5));
    assert!(lines.flush(AMPLE));
    assert!(reports.try_recv().is_err(), "reported once");
    lines.push(&vec![b'x'; BYTES_MAX]);
    assert_eq!(lines.lost(), 6, "a line that never fits");
}

#[test]
fn counts_a_line_that_cannot_be_written_without_a_report() {
    let (report, reports) = channel();
    let sink = |_: &[u8]| Err(ErrorKind::BrokenPipe.into());
    let lines = Lines::queued("test", sink, move |dropped| report.send(dropped).unwrap());
    lines.begin().unwrap();
    lines.push(b"line");
    assert!(lines.flush(AMPLE));
    assert_eq!(lines.lost(), 1);
    assert!(reports.try_recv().is_err(), "a line about it could not be written either");
}

#[test]
fn loses_nothing_on_a_non_blocking_descriptor() {
    let (reader, writer) = io::pipe().unwrap();
    fcntl_setfl(&writer, OFlags::NONBLOCK).unwrap();
    let lines = Lines::queued("test", file_sink(&writer).unwrap(), |_| ());
    lines.begin().unwrap();
    let line = format!("{}\n", "x".repeat(999));
    for _ in 0..500 {
        lines.push(line.as_bytes());
    }
    assert!(!lines.flush(SHORT), "a pipe does not have so much room");
    let read = BufReader::new(reader).lines().take(500);
    assert!(read.map(Result::unwrap).all(|read| read.len() == 999));
    assert!(lines.flush(AMPLE));
    assert_eq!(lines.lost(), 0);
}
