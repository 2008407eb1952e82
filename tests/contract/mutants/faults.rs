//! The faults of a keeper, and the rule that catches each.

/// A method of the port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    Describe,
    Wrap,
    Unwrap,
    UnwrapMany,
}

/// One fault of a keeper.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    // Binding.
    BindsNothingAndSaysSo,
    PinsNothingAndSaysSo,
    IgnoresAssociatedData,
    BindsTheFirstFiftyBytes,
    OpensUnboundUnderAnyAssociatedData,
    RefusesToWrapUnbound,
    // Ciphertexts.
    UsesOneNonce,
    AcceptsACutTag,
    IgnoresTrailingBytes,
    IgnoresTheFirstByte,
    IgnoresTheVersionMarker,
    LosesBytesBeyond32,
    PanicsOnNonsense,
    AnswersNonsenseWithKeeperAnswer,
    VersionOfPanicsOnNonsense,
    VersionOfAnswersNonsenseWithKeeperAnswer,
    AnswersAForgeryWithAnOutage,
    // Versions.
    WrapsWithTheLatest,
    WrapsWithTheLatestAndClaimsTheOther,
    ClaimsAnotherVersion,
    VersionOfIsAlwaysOne,
    RotationDropsTheFormerVersion,
    ListsVersionsThatDoNotUnwrap,
    AnswersNotYetWithKeyMissing,
    FailsForFourCallsAfterARotation,
    // Descriptions.
    DescribesFromACacheForEver,
    CreationTimesMove,
    BornAtZero,
    BornIn1970,
    BornInAnHour,
    MinDecryptionIsTheLatest,
    // Several at once.
    DropsTheLastItem,
    MixesUpItemsAfter32,
    AnswersItemsInReverse,
    OneBadItemFailsAll,
    SharesOneBuffer,
    LosesAPermitWhenCancelled,
    // Errors.
    PutsThePlaintextIntoErrors,
    GivesNoRemedy,
    // Time.
    BlocksIn(Method),
    BlocksInPlace,
    BlocksInATaskOfItsOwn,
    IgnoresDeadlinesFor400Ms,
    // Hooks.
    AnswersAnOutageWithKeyMissing,
    DescribesFromMemoryInAnOutage,
    NeverHeals,
    HangsForEver,
    BlocksWhileItHangs,
    AnswersATimeOutWithInternal,
    AnswersRetiredWithRejected,
    ListsRetiredVersions,
    UnwrapsWithRetiredVersions,
    WrapsWithRetiredVersions,
    ReplacementHasTheFormerCreationTime,
    UnwrapsWithTheFormerKey,
}

/// A fault, the rule that catches it, and a part of that rule's message.
pub struct Mutant {
    pub fault: Fault,
    pub rule: &'static str,
    pub says: &'static str,
}

const fn mutant(fault: Fault, rule: &'static str, says: &'static str) -> Mutant {
    Mutant { fault, rule, says }
}

pub const MUTANTS: &[Mutant] = &[
    mutant(Fault::BindsNothingAndSaysSo, "it_binds_and_pins_versions", "binds: false"),
    mutant(Fault::PinsNothingAndSaysSo, "it_binds_and_pins_versions", "pins_versions: false"),
    mutant(Fault::IgnoresAssociatedData, "other_associated_data_is_refused", "another key id"),
    mutant(
        Fault::IgnoresAssociatedData,
        "fields_cannot_be_swapped_between_objects",
        "AadNotEnforced",
    ),
    mutant(Fault::BindsTheFirstFiftyBytes, "other_associated_data_is_refused", "another last byte"),
    mutant(
        Fault::OpensUnboundUnderAnyAssociatedData,
        "no_associated_data_is_a_value_of_its_own",
        "",
    ),
    mutant(
        Fault::RefusesToWrapUnbound,
        "what_was_written_without_binding_is_read_as_such",
        "InvalidRequest",
    ),
    mutant(Fault::UsesOneNonce, "two_wraps_of_one_plaintext_differ", ""),
    mutant(Fault::AcceptsACutTag, "a_cut_or_lengthened_ciphertext_is_refused", "was unwrapped"),
    mutant(
        Fault::IgnoresTrailingBytes,
        "a_cut_or_lengthened_ciphertext_is_refused",
        "was unwrapped",
    ),
    mutant(Fault::IgnoresTheFirstByte, "every_changed_byte_is_refused", "was unwrapped"),
    mutant(Fault::IgnoresTheVersionMarker, "another_version_marker_is_refused", "was unwrapped"),
    mutant(Fault::LosesBytesBeyond32, "what_was_wrapped_unwraps", "33 bytes"),
    mutant(Fault::PanicsOnNonsense, "nonsense_is_refused", "nonsense"),
    mutant(Fault::AnswersNonsenseWithKeeperAnswer, "nonsense_is_refused", "keeper-answer"),
    mutant(Fault::VersionOfPanicsOnNonsense, "nonsense_is_refused", "this is nonsense"),
    mutant(Fault::VersionOfAnswersNonsenseWithKeeperAnswer, "nonsense_is_refused", "version_of"),
    mutant(Fault::AnswersAForgeryWithAnOutage, "other_associated_data_is_refused", "keeper-failed"),
    mutant(Fault::WrapsWithTheLatest, "the_version_asked_for_is_used", ""),
    mutant(Fault::WrapsWithTheLatestAndClaimsTheOther, "the_version_asked_for_is_used", ""),
    mutant(
        Fault::ClaimsAnotherVersion,
        "a_seed_goes_and_comes_back_through_the_use_cases",
        "KeeperAnswer",
    ),
    mutant(Fault::VersionOfIsAlwaysOne, "the_version_asked_for_is_used", ""),
    mutant(
        Fault::RotationDropsTheFormerVersion,
        "old_versions_still_unwrap_after_a_rotation",
        "version 1",
    ),
    mutant(
        Fault::ListsVersionsThatDoNotUnwrap,
        "every_version_described_wraps_and_unwraps",
        "unwrap with 1",
    ),
    mutant(
        Fault::AnswersNotYetWithKeyMissing,
        "a_version_that_does_not_exist_yet_is_told_apart",
        "key-missing",
    ),
    mutant(
        Fault::FailsForFourCallsAfterARotation,
        "calls_go_on_while_the_key_rotates",
        "during rotations",
    ),
    mutant(
        Fault::DescribesFromACacheForEver,
        "the_version_asked_for_is_used",
        "a rotation adds a version",
    ),
    mutant(Fault::CreationTimesMove, "every_node_gives_one_key_id", ""),
    mutant(Fault::CreationTimesMove, "unknown_key_ids_are_refused", "KeyReplaced"),
    mutant(Fault::BornAtZero, "a_key_is_described_with_dated_versions", ""),
    mutant(Fault::BornIn1970, "a_rotation_takes_over_at_one_instant", ""),
    mutant(Fault::BornInAnHour, "a_key_is_described_with_dated_versions", ""),
    mutant(Fault::MinDecryptionIsTheLatest, "a_rotation_takes_over_at_one_instant", ""),
    mutant(
        Fault::MixesUpItemsAfter32,
        "a_full_batch_is_answered_item_by_item",
        "item 32 of 64 got the answer of another one",
    ),
    mutant(Fault::DropsTheLastItem, "one_bad_item_fails_no_other", ""),
    mutant(Fault::AnswersItemsInReverse, "one_bad_item_fails_no_other", ""),
    mutant(Fault::OneBadItemFailsAll, "one_bad_item_fails_no_other", ""),
    mutant(Fault::SharesOneBuffer, "many_calls_at_once_do_not_mix", "caller"),
    mutant(
        Fault::LosesAPermitWhenCancelled,
        "a_cancelled_call_harms_no_other",
        "after cancelled calls",
    ),
    mutant(
        Fault::PutsThePlaintextIntoErrors,
        "errors_are_one_line_and_hold_no_plaintext",
        "holds the plaintext",
    ),
    mutant(Fault::GivesNoRemedy, "errors_are_one_line_and_hold_no_plaintext", ""),
    mutant(
        Fault::BlocksIn(Method::Describe),
        "no_call_blocks_the_thread",
        "describe blocks a thread",
    ),
    mutant(Fault::BlocksIn(Method::Wrap), "no_call_blocks_the_thread", "wrap blocks a thread"),
    mutant(Fault::BlocksIn(Method::Unwrap), "no_call_blocks_the_thread", "unwrap blocks a thread"),
    mutant(
        Fault::BlocksIn(Method::UnwrapMany),
        "no_call_blocks_the_thread",
        "unwrap_many blocks a thread",
    ),
    mutant(Fault::BlocksInPlace, "no_call_blocks_the_thread", "multi-threaded runtime"),
    mutant(Fault::BlocksInATaskOfItsOwn, "no_call_blocks_the_thread", "spawn_blocking"),
    mutant(Fault::IgnoresDeadlinesFor400Ms, "a_passed_deadline_ends_the_call", "wrap takes"),
    mutant(Fault::AnswersAnOutageWithKeyMissing, "an_outage_is_told_and_ends", "KeyMissing"),
    mutant(
        Fault::DescribesFromMemoryInAnOutage,
        "an_outage_is_told_and_ends",
        "describe must fail",
    ),
    mutant(Fault::NeverHeals, "an_outage_is_told_and_ends", "does not work again"),
    mutant(Fault::HangsForEver, "a_call_that_hangs_ends_by_its_deadline", "describe went on"),
    mutant(Fault::BlocksWhileItHangs, "a_call_that_hangs_ends_by_its_deadline", "spawn_blocking"),
    mutant(
        Fault::AnswersATimeOutWithInternal,
        "a_call_that_hangs_ends_by_its_deadline",
        "Internal",
    ),
    mutant(
        Fault::AnswersRetiredWithRejected,
        "a_retired_version_is_told_apart",
        "CiphertextRejected",
    ),
    mutant(Fault::ListsRetiredVersions, "a_retired_version_is_told_apart", "describe shows"),
    mutant(
        Fault::UnwrapsWithRetiredVersions,
        "a_retired_version_is_told_apart",
        "unwrap with a retired version",
    ),
    mutant(
        Fault::WrapsWithRetiredVersions,
        "a_retired_version_is_told_apart",
        "wrap with a retired version",
    ),
    mutant(Fault::ReplacementHasTheFormerCreationTime, "a_replaced_key_is_noticed", ""),
    mutant(Fault::UnwrapsWithTheFormerKey, "a_replaced_key_is_noticed", "uses a key"),
];
