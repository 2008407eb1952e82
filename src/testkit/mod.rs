//! The contract of [`crate::ports::kek::Kek`] as a suite that any keeper can be held to.
//!
//! An author of a keeper implements [`Subject`] and names it once:
//!
//! ```ignore
//! kms_keeper::kek_contract!(MySubject::start().await);
//! ```
//!
//! That makes one `#[tokio::test]` for each rule, so a failure names the rule that was broken.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::missing_panics_doc,
    reason = "assertions: a broken rule is a panic of the test"
)]

pub mod rules;

mod calls;
mod hooks;
mod one_thread;
mod timing;
mod use_cases;

use std::{
    any::type_name,
    future::Future,
    pin::Pin,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use async_trait::async_trait;
use tokio::time::timeout;

pub use self::hooks::Hook;
use crate::{
    domain::{
        key::KekVersion,
        time::{Monotonic, UnixTime},
    },
    ports::{clock::Clock, kek::Kek},
};

/// A keeper under test, with a fresh key of one version.
///
/// The methods with a default are hooks. A rule over a hook that is left out is not run, and says so
/// in a line `NOT RUN: ...` on standard error.
#[async_trait]
pub trait Subject: Send + Sync {
    /// Returns the keeper. A keeper that does not bind, or does not pin versions
    /// ([`Abilities`](crate::ports::abilities::Abilities)), stands inside
    /// `vault_kube_kms::adapters::layers::seal::Seal`, as it does in the program.
    fn kek(&self) -> Arc<dyn Kek>;

    /// Adds a version to the key, by whatever means an operator would use.
    async fn rotate(&self);

    /// Returns the clock that the keeper's deadlines are counted by.
    fn clock(&self) -> Arc<dyn Clock>;

    /// Returns the name of this subject in the lines `NOT RUN: ...`: that of its type.
    fn name(&self) -> &'static str {
        type_name::<Self>()
    }

    /// Takes the keeper's server or device away (`true`: connections are refused, the token is
    /// pulled out), or brings it back (`false`). Dropping the subject also brings it back.
    async fn outage(&self, _away: bool) -> Hook {
        Hook::NotProvided
    }

    /// Ends unwrapping with `version`, by whatever means an operator would use. Lower versions may
    /// be retired with it; higher ones stay.
    async fn retire(&self, _version: KekVersion) -> Hook {
        Hook::NotProvided
    }

    /// Puts another key of one version in the place of this one, under the same name.
    async fn replace(&self) -> Hook {
        Hook::NotProvided
    }

    /// Makes every call to the server or device wait for ever (`true`: it accepts calls and does
    /// not answer), or lets it answer again (`false`). Dropping the subject also lets it answer. A
    /// keeper that leaves its deadlines to the layers (`vault_kube_kms::adapters::layers::around`)
    /// answers with [`Hook::DoesNotApply`].
    async fn hang(&self, _hangs: bool) -> Hook {
        Hook::NotProvided
    }
}

/// Time for a call that is meant to succeed.
const CALL: Duration = Duration::from_secs(10);

fn deadline(subject: &dyn Subject) -> Monotonic {
    subject.clock().now().after(CALL)
}

/// The wall clock of the test, to judge creation times by.
#[expect(clippy::disallowed_methods, reason = "a test's own clock")]
fn wall() -> UnixTime {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    UnixTime::from_secs(i64::try_from(since.as_secs()).unwrap_or(i64::MAX))
}

/// One rule of the contract, for a test harness of one's own.
#[derive(Clone, Copy, Debug)]
pub struct Rule {
    name: &'static str,
    hold: for<'a> fn(&'a dyn Subject) -> Held<'a>,
}

type Held<'a> = Pin<Box<dyn Future<Output = ()> + Send + 'a>>;

impl Rule {
    /// Every rule. Those over hooks come last.
    pub const ALL: &'static [Self] = crate::kek_rules! { @list () };

    /// Returns the name of the rule, which says what it demands.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        self.name
    }

    /// Holds `subject`, which no other rule has used, to the rule. A broken rule is a panic.
    pub async fn hold(&self, subject: &dyn Subject) {
        in_time((self.hold)(subject)).await;
    }
}

/// The longest time that a rule may take. Only a keeper that does not end its calls needs more.
const RULE_MAX: Duration = Duration::from_mins(2);

/// Runs `rule`, and panics when it takes longer than two minutes.
#[doc(hidden)]
pub async fn in_time(rule: impl Future<Output = ()>) {
    let ended = timeout(RULE_MAX, rule).await;
    assert!(ended.is_ok(), "the rule did not end within {RULE_MAX:?}: a call of the keeper hangs");
}

/// Makes a test of each rule for the subject that the expression gives.
///
/// The tests run at once, each on a subject of its own. Where that is not possible, as with one
/// device for all, use [`hold_to_every_rule`].
#[macro_export]
macro_rules! kek_contract {
    ($subject:expr) => {
        $crate::kek_rules! { @tests ($subject) }
    };
}

/// The list of the rules, handed to what is made of them. The rules of the second list run on a
/// runtime of one thread.
#[doc(hidden)]
#[macro_export]
macro_rules! kek_rules {
    (@rule $rule:ident) => {
        Rule { name: stringify!($rule), hold: |subject| Box::pin(rules::$rule(subject)) }
    };
    (@$make:ident $with:tt) => {
        $crate::kek_rules! { @$make $with
            [
                it_binds_and_pins_versions
                a_key_is_described_with_dated_versions
                what_was_wrapped_unwraps
                two_wraps_of_one_plaintext_differ
                the_version_asked_for_is_used
                every_version_described_wraps_and_unwraps
                old_versions_still_unwrap_after_a_rotation
                other_associated_data_is_refused
                no_associated_data_is_a_value_of_its_own
                every_changed_byte_is_refused
                a_cut_or_lengthened_ciphertext_is_refused
                another_version_marker_is_refused
                nonsense_is_refused
                a_version_that_does_not_exist_yet_is_told_apart
                one_bad_item_fails_no_other
                a_full_batch_is_answered_item_by_item
                many_calls_at_once_do_not_mix
                calls_go_on_while_the_key_rotates
                a_cancelled_call_harms_no_other
                a_passed_deadline_ends_the_call
                errors_are_one_line_and_hold_no_plaintext
                every_node_gives_one_key_id
                a_seed_goes_and_comes_back_through_the_use_cases
                fields_cannot_be_swapped_between_objects
                unknown_key_ids_are_refused
                what_was_written_without_binding_is_read_as_such
                a_rotation_takes_over_at_one_instant
                an_outage_is_told_and_ends
                a_call_that_hangs_ends_by_its_deadline
                a_retired_version_is_told_apart
                a_replaced_key_is_noticed
            ]
            [no_call_blocks_the_thread]
        }
    };
    (@tests ($subject:expr) [$($rule:ident)+] [$($single:ident)+]) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $rule() {
                let subject = $subject;
                $crate::testkit::in_time($crate::testkit::rules::$rule(&subject)).await;
            }
        )+
        $(
            #[tokio::test]
            async fn $single() {
                let subject = $subject;
                $crate::testkit::in_time($crate::testkit::rules::$single(&subject)).await;
            }
        )+
    };
    (@list () [$($rule:ident)+] [$($single:ident)+]) => {
        &[$($crate::kek_rules! { @rule $single },)+ $($crate::kek_rules! { @rule $rule }),+]
    };
}

/// Holds a keeper to every rule, one after the other, each on the subject that `make` gives for the
/// rule of that name. A broken rule is a panic.
///
/// Use it in place of [`kek_contract`] where the rules share one server or
/// device: a server that is slow to start, a token with few sessions, a device on which a rotation,
/// or an outage that a rule makes, would disturb the others. `make` then gives each rule a key of
/// its own on it. Call it on a runtime of several threads.
pub async fn hold_to_every_rule<S: Subject, F: Future<Output = S> + Send>(
    make: impl Fn(&'static str) -> F + Send + Sync,
) {
    for rule in Rule::ALL {
        let subject = make(rule.name()).await;
        rule.hold(&subject).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    #[should_panic(expected = "a call of the keeper hangs")]
    async fn a_rule_that_does_not_end_is_broken() {
        in_time(std::future::pending()).await;
    }
}
