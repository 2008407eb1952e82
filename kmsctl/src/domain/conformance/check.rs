//! What the rules have in common: evidence, and judgements over many answers.

use std::{fmt, time::Duration};

use super::answer::{Call, Refusal};
use super::{Opened, Trial, Verdict};

/// The longest part of a plugin's text in the evidence, in characters.
const TEXT_MAX: usize = 200;

/// How many accepted requests the evidence names.
const SHOWN: usize = 4;

/// Returns `text` of a plugin on one line, in quotes, and shortened.
pub(super) fn quoted(text: &str) -> String {
    let mut short: String = text.chars().take(TEXT_MAX).collect();
    if short.len() < text.len() {
        short.push_str("...");
    }
    format!("{short:?}")
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.code, quoted(&self.text))
    }
}

/// Says that a rule holds.
pub(super) fn holds(evidence: impl fmt::Display) -> Verdict {
    Verdict::Holds(evidence.to_string())
}

/// Says that a rule is broken.
pub(super) fn broken(evidence: impl fmt::Display) -> Verdict {
    Verdict::Broken(evidence.to_string())
}

/// Says that a rule could not be tried.
pub(super) fn skipped(why: &str) -> Verdict {
    Verdict::Skipped(why.to_owned())
}

/// Judges the answered calls. `fault` says what is wrong with an answer. A call without an answer is
/// judged by another rule.
pub(super) fn every<'a, T: 'a>(
    calls: impl IntoIterator<Item = &'a Call<T>>,
    what: &str,
    fault: impl Fn(&T) -> Option<String>,
) -> Verdict {
    let mut seen = 0_usize;
    for answer in calls.into_iter().filter_map(|call| call.answer.as_ref().ok()) {
        if let Some(fault) = fault(answer) {
            return broken(fault);
        }
        seen = seen.saturating_add(1);
    }
    if seen == 0 { skipped("no call had an answer") } else { holds(format!("{seen} {what}")) }
}

/// Requires that each trial returned the plaintext.
pub(super) fn all_same(trials: &[Trial]) -> Verdict {
    let slowest = trials.iter().map(|trial| trial.took).max().unwrap_or_default();
    let failed: Vec<_> = trials.iter().filter(|trial| trial.opened != Opened::Same).collect();
    match (failed.first(), trials.len()) {
        (None, 0) => skipped("nothing could be wrapped before"),
        (None, all) => holds(format!("{all} reads, the slowest in {}", Milliseconds(slowest))),
        (Some(first), all) => broken(format!(
            "{} of {all} failed, such as {}: {}",
            failed.len(),
            first.what,
            first.opened
        )),
    }
}

/// Requires that each trial was refused.
pub(super) fn all_refused(trials: &[Trial]) -> Verdict {
    let accepted: Vec<_> = trials
        .iter()
        .filter(|trial| !matches!(trial.opened, Opened::Refused(_)))
        .map(|trial| format!("{} ({})", trial.what, trial.opened))
        .collect();
    match (trials.len(), accepted.is_empty()) {
        (0, _) => skipped("nothing could be wrapped before"),
        (all, true) => holds(format!("{all} of {all} refused")),
        (all, false) => {
            let count = accepted.len();
            let more = if count > SHOWN { ", ..." } else { "" };
            let shown: Vec<_> = accepted.into_iter().take(SHOWN).collect();
            broken(format!("accepted {count} of {all}: {}{more}", shown.join(", ")))
        }
    }
}

impl fmt::Display for Opened {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Same => write!(f, "the right plaintext"),
            Self::Other => write!(f, "other bytes"),
            Self::Refused(refusal) => write!(f, "{refusal}"),
        }
    }
}

/// A duration in milliseconds, for people.
#[derive(Clone, Copy, Debug)]
pub(super) struct Milliseconds(pub(super) Duration);

impl fmt::Display for Milliseconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.1} ms", self.0.as_secs_f64() * 1000.0)
    }
}

/// Returns the smallest of `durations` that `percent` of them do not exceed. `None` without
/// durations.
#[must_use]
pub fn percentile(mut durations: Vec<Duration>, percent: usize) -> Option<Duration> {
    durations.sort_unstable();
    let rank = durations.len().saturating_mul(percent).div_ceil(100).saturating_sub(1);
    durations.get(rank).copied()
}
