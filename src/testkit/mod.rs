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

mod use_cases;

use std::{
    future::Future,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use async_trait::async_trait;

use crate::{
    domain::time::{Monotonic, UnixTime},
    ports::{clock::Clock, kek::Kek},
};

/// A keeper under test, with a fresh key of one version.
#[async_trait]
pub trait Subject: Send + Sync {
    /// The keeper.
    fn kek(&self) -> Arc<dyn Kek>;

    /// Adds a version to the key, by whatever means an operator would use.
    async fn rotate(&self);

    /// The clock that the keeper's deadlines are counted by.
    fn clock(&self) -> Arc<dyn Clock>;
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

/// Makes a test of each rule for the subject that the expression gives.
#[macro_export]
macro_rules! kek_contract {
    ($subject:expr) => {
        $crate::kek_rules! { @tests ($subject) }
    };
}

/// The list of the rules, handed to what is made of them.
#[doc(hidden)]
#[macro_export]
macro_rules! kek_rules {
    (@$make:ident $with:tt) => {
        $crate::kek_rules! { @$make $with
            a_key_is_described_with_dated_versions
            what_was_wrapped_unwraps
            two_wraps_of_one_plaintext_differ
            the_version_asked_for_is_used
            old_versions_still_unwrap_after_a_rotation
            other_associated_data_is_refused
            no_associated_data_is_a_value_of_its_own
            every_changed_byte_is_refused
            a_cut_or_lengthened_ciphertext_is_refused
            another_version_marker_is_refused
            nonsense_is_refused
            a_version_that_does_not_exist_yet_is_told_apart
            one_bad_item_fails_no_other
            many_calls_at_once_do_not_mix
            a_passed_deadline_ends_the_call
            errors_are_one_line_and_hold_no_plaintext
            every_node_gives_one_key_id
            a_seed_goes_and_comes_back_through_the_use_cases
            fields_cannot_be_swapped_between_objects
            unknown_key_ids_are_refused
            what_was_written_without_binding_is_read_as_such
            a_rotation_takes_over_at_one_instant
        }
    };
    (@tests ($subject:expr) $($rule:ident)+) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $rule() {
                let subject = $subject;
                $crate::testkit::rules::$rule(&subject).await;
            }
        )+
    };
    (@all ($make:ident) $($rule:ident)+) => {
        $(
            let subject = $make(stringify!($rule)).await;
            $crate::testkit::rules::$rule(&subject).await;
            drop(subject);
        )+
    };
}

/// Holds a keeper to every rule, one after the other, for those who start one server for all.
/// `make` gives a fresh subject for the rule of that name.
pub async fn hold_to_every_rule<S: Subject, F: Future<Output = S> + Send>(
    make: impl Fn(&'static str) -> F + Send + Sync,
) {
    crate::kek_rules! { @all (make) }
}
