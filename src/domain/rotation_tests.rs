use super::{
    super::{key::Fingerprint, key_id::Lineage},
    *,
};

const DELAY: Duration = Duration::from_mins(1);
const BORN: i64 = 1_000_000;

fn v(number: u32) -> KekVersion {
    KekVersion::new(number).unwrap()
}

fn ring() -> KeyRing {
    let identity = KeyIdentity::new(Lineage::of_place("test", &["k"]), 0);
    KeyRing::new(identity, DELAY, BTreeMap::new())
}

fn snapshot(versions: &[(u32, i64)]) -> KekSnapshot {
    KekSnapshot::new(versions.iter().map(|(n, born)| (v(*n), UnixTime::from_secs(*born).into())))
}

fn at(seconds: u64) -> Monotonic {
    Monotonic::at(Duration::from_secs(seconds))
}

/// Observes at `seconds` on a local clock that reads `BORN + seconds`.
fn see(ring: &mut KeyRing, versions: &[(u32, i64)], seconds: u64) -> Vec<RingChange> {
    let wall = UnixTime::from_secs(BORN).after(Duration::from_secs(seconds));
    ring.observe(snapshot(versions), at(seconds), wall)
}

fn writes(ring: &KeyRing, seconds: u64) -> u32 {
    ring.writer(at(seconds)).unwrap().version.get()
}

#[test]
fn nothing_writes_before_the_keeper_was_seen() {
    assert_eq!(ring().writer(at(0)).unwrap_err().code(), Code::Starting);
}

#[test]
fn a_fresh_key_writes_at_once() {
    let mut ring = ring();
    see(&mut ring, &[(1, BORN)], 0);
    assert_eq!(writes(&ring, 0), 1);
}

#[test]
fn a_key_rotated_just_before_the_first_start_writes_with_the_older_version() {
    let mut ring = ring();
    see(&mut ring, &[(1, BORN - 1), (2, BORN)], 1);
    assert_eq!(writes(&ring, 1), 1);
    assert_eq!(writes(&ring, 61), 2);
}

#[test]
fn a_new_version_takes_over_at_one_instant_whenever_a_node_polled() {
    let (mut early, mut late) = (ring(), ring());
    for ring in [&mut early, &mut late] {
        see(ring, &[(1, BORN - 1_000)], 0);
    }
    see(&mut early, &[(1, BORN - 1_000), (2, BORN + 100)], 101);
    see(&mut late, &[(1, BORN - 1_000), (2, BORN + 100)], 129);
    for ring in [&early, &late] {
        assert_eq!(ring.next_takeover(v(1), at(130)), Some((v(2), Duration::from_secs(30))));
        assert_eq!(
            ring.writer(Monotonic::at(Duration::from_millis(159_999))).unwrap().version,
            v(1)
        );
        assert_eq!(writes(ring, 160), 2);
    }
}

#[test]
fn a_lagging_replica_changes_nothing() {
    let mut ring = ring();
    see(&mut ring, &[(1, BORN - 1_000), (2, BORN - 500)], 0);
    let changes = see(&mut ring, &[(1, BORN - 1_000)], 15);
    assert_eq!(changes, [RingChange::Lagging { answered: v(1), known: v(2) }]);
    assert_eq!(writes(&ring, 15), 2);
    see(&mut ring, &[(1, BORN - 1_000), (2, BORN - 500)], 30);
    see(&mut ring, &[(1, BORN - 1_000)], 80);
    assert_eq!(ring.incident(), None, "the good answer in between starts the count anew");
}

#[test]
fn a_rollback_that_persists_is_an_incident_and_heals_when_the_key_is_back() {
    let mut ring = ring();
    see(&mut ring, &[(1, BORN - 1_000), (2, BORN - 500)], 0);
    see(&mut ring, &[(1, BORN - 1_000)], 10);
    see(&mut ring, &[(1, BORN - 1_000)], 70);
    assert_eq!(ring.incident().map(KmsError::code), Some(Code::KeyRolledBack));
    let changes = see(&mut ring, &[(1, BORN - 1_000), (2, BORN - 500)], 80);
    assert_eq!(changes, [RingChange::IncidentCleared]);
    assert_eq!(writes(&ring, 80), 2);
}

#[test]
fn a_replaced_key_is_an_incident_at_once_and_is_told_once() {
    let mut ring = ring();
    see(&mut ring, &[(1, BORN - 1_000)], 0);
    let changes = see(&mut ring, &[(1, BORN + 5)], 15);
    assert!(
        matches!(changes.as_slice(), [RingChange::IncidentRaised(e)] if e.code() == Code::KeyReplaced)
    );
    assert!(see(&mut ring, &[(1, BORN + 5)], 30).is_empty());
    assert_eq!(ring.writer(at(30)).unwrap_err().code(), Code::KeyReplaced);
}

#[test]
fn a_creation_time_in_the_future_counts_from_when_it_was_seen() {
    let mut ring = ring();
    see(&mut ring, &[(1, BORN - 1_000)], 0);
    see(&mut ring, &[(1, BORN - 1_000), (2, BORN + 3_600)], 10);
    assert_eq!(writes(&ring, 69), 1);
    assert_eq!(writes(&ring, 70), 2);
}

#[test]
fn a_local_clock_an_hour_off_is_corrected_by_the_keepers() {
    let mut ring = ring();
    let mut seen = snapshot(&[(1, BORN - 1_000), (2, BORN)]);
    seen.keeper_time = Some(UnixTime::from_secs(BORN + 10));
    ring.observe(seen, at(10), UnixTime::from_secs(BORN - 3_600));
    assert_eq!(writes(&ring, 59), 1);
    assert_eq!(writes(&ring, 60), 2);
}

#[test]
fn a_clock_that_is_set_back_does_not_take_the_pen_away() {
    let mut ring = ring();
    let versions = [(1, BORN - 900), (2, BORN)];
    ring.observe(snapshot(&versions), at(58), UnixTime::from_secs(BORN + 60));
    assert_eq!(writes(&ring, 58), 2);
    ring.observe(snapshot(&versions), at(59), UnixTime::from_secs(BORN + 59));
    assert_eq!(writes(&ring, 59), 2);
}

#[test]
fn minimum_versions_bound_the_writer() {
    let mut ring = ring();
    let mut seen = snapshot(&[(1, BORN - 900), (2, BORN - 800), (3, BORN)]);
    seen.min_encryption = Some(v(3));
    ring.observe(seen, at(1), UnixTime::from_secs(BORN + 1));
    assert_eq!(writes(&ring, 1), 3, "no aged version may write, so the lowest allowed does");
}

#[test]
fn ids_resolve_to_known_newer_retired_or_unknown() {
    let mut ring = ring();
    see(&mut ring, &[(1, BORN - 900), (2, BORN - 800)], 0);
    let first = ring.identity.id_of(v(1), UnixTime::from_secs(BORN - 900));
    assert_eq!(ring.resolve(first.as_str()), Resolution::Known(v(1)));
    let foreign = ring.identity.id_of(v(1), UnixTime::from_secs(BORN - 899));
    assert_eq!(ring.resolve(foreign.as_str()), Resolution::Unknown);
    let newer = ring.identity.id_of(v(3), UnixTime::from_secs(BORN));
    assert_eq!(ring.resolve(newer.as_str()), Resolution::Newer(v(3)));
    assert_eq!(ring.resolve("1"), Resolution::Unknown);
    see(&mut ring, &[(2, BORN - 800)], 15);
    assert_eq!(ring.resolve(first.as_str()), Resolution::Archived(v(1)));
}

#[test]
fn an_id_below_what_the_keeper_shows_is_retired_for_one_who_never_saw_it() {
    let mut ring = ring();
    see(&mut ring, &[(3, BORN - 900)], 0);
    let earlier = ring.identity.id_of(v(1), UnixTime::from_secs(BORN - 2_000));
    assert_eq!(ring.resolve(earlier.as_str()), Resolution::Retired(v(1)));
}

#[test]
fn two_rotations_between_polls_are_one_change_to_the_newest_aged() {
    let mut ring = ring();
    see(&mut ring, &[(1, BORN - 900)], 0);
    let changes = see(&mut ring, &[(1, BORN - 900), (2, BORN + 1), (3, BORN + 2)], 62);
    assert_eq!(changes, [RingChange::Appeared(v(2)), RingChange::Appeared(v(3))]);
    assert_eq!(writes(&ring, 62), 3);
}

#[test]
fn without_the_keepers_clock_the_local_one_counts() {
    let mut ring = ring();
    see(&mut ring, &[(1, BORN - 900), (2, BORN)], 10);
    assert_eq!((writes(&ring, 59), writes(&ring, 60)), (1, 2));
}

#[test]
fn a_writer_below_the_minimum_hands_over_at_once() {
    let mut ring = ring();
    see(&mut ring, &[(1, BORN - 900), (2, BORN)], 1);
    assert_eq!(writes(&ring, 1), 1);
    let changes = see(&mut ring, &[(2, BORN)], 2);
    assert_eq!(changes, [RingChange::Retired(v(1))]);
    assert_eq!(writes(&ring, 2), 2, "it is the lowest that may write, whatever its age");
}

#[test]
fn minimums_below_the_writer_change_nothing() {
    let mut ring = ring();
    let mut seen = snapshot(&[(2, BORN - 900), (3, BORN - 800)]);
    seen.min_encryption = Some(v(2));
    ring.observe(seen, at(1), UnixTime::from_secs(BORN + 1));
    assert_eq!(writes(&ring, 1), 3);
}

#[test]
fn a_trimmed_version_is_archived_for_those_who_knew_it() {
    let mut ring = ring();
    see(&mut ring, &[(1, BORN - 900), (2, BORN - 800), (3, BORN - 700)], 0);
    let trimmed = ring.identity.id_of(v(2), UnixTime::from_secs(BORN - 800));
    see(&mut ring, &[(3, BORN - 700)], 15);
    assert_eq!(ring.resolve(trimmed.as_str()), Resolution::Archived(v(2)));
    assert_eq!(ring.incident(), None);
}

#[test]
fn an_accepted_id_reads_with_the_version_it_was_mapped_to() {
    let mut ring = ring();
    ring.accepted.insert("v1.from-before".to_owned(), v(1));
    see(&mut ring, &[(1, BORN - 900)], 0);
    assert_eq!(ring.resolve("v1.from-before"), Resolution::Known(v(1)));
    ring.accepted.insert("mistyped".to_owned(), v(9));
    assert_eq!(ring.resolve("mistyped"), Resolution::Newer(v(9)));
}

/// Checklist 55: a wall clock that jumps by an hour, seen by a keeper that tells its own time and by
/// one that does not.
#[test]
fn a_wall_clock_that_jumps_changes_neither_the_writer_nor_its_id() {
    let versions = [(1, BORN - 1_000), (2, BORN + 100)];
    for jump in [-3_600, 3_600_i64] {
        for tells_time in [true, false] {
            let mut ring = ring();
            see(&mut ring, &versions, 170);
            let before = ring.writer(at(170)).unwrap();
            for second in 171..200 {
                let mut seen = snapshot(&versions);
                let elapsed = i64::try_from(second).unwrap();
                seen.keeper_time = tells_time.then(|| UnixTime::from_secs(BORN + elapsed));
                ring.observe(seen, at(second), UnixTime::from_secs(BORN + elapsed + jump));
                assert_eq!(ring.writer(at(second)).unwrap(), before, "{jump} {tells_time}");
            }
        }
    }
}

/// The same jump while a version waits: a keeper that tells its time lets it take over when it would.
#[test]
fn a_wall_clock_that_jumps_does_not_move_a_takeover() {
    let versions = [(1, BORN - 1_000), (2, BORN + 100)];
    for jump in [-3_600, 3_600_i64] {
        let mut ring = ring();
        see(&mut ring, &versions, 110);
        let mut seen = snapshot(&versions);
        seen.keeper_time = Some(UnixTime::from_secs(BORN + 120));
        ring.observe(seen, at(120), UnixTime::from_secs(BORN + 120 + jump));
        assert_eq!((writes(&ring, 159), writes(&ring, 160)), (1, 2), "{jump}");
    }
}

fn fingerprinted(names: &[&str]) -> KekSnapshot {
    let identity = |name: &&str| VersionIdentity::Fingerprint(Fingerprint::of(name.as_bytes()));
    KekSnapshot::new((1..).map(v).zip(names.iter().map(identity)))
}

fn see_fingerprints(ring: &mut KeyRing, names: &[&str], seconds: u64) -> Vec<RingChange> {
    let wall = UnixTime::from_secs(BORN).after(Duration::from_secs(seconds));
    ring.observe(fingerprinted(names), at(seconds), wall)
}

#[test]
fn a_version_without_a_creation_time_is_as_old_as_this_node_knows_it() {
    let mut ring = ring();
    see_fingerprints(&mut ring, &["a", "b"], 0);
    assert_eq!(writes(&ring, 0), 2, "what was there at the first look counts as old");
    assert_eq!(ring.versions()[1].writes_from, None);
    see_fingerprints(&mut ring, &["a", "b", "c"], 100);
    assert_eq!(writes(&ring, 100), 2);
    assert_eq!(ring.next_takeover(v(2), at(100)), Some((v(3), DELAY)));
    assert_eq!(writes(&ring, 100 + DELAY.as_secs()), 3);
}

#[test]
fn another_fingerprint_is_another_key() {
    let mut ring = ring();
    see_fingerprints(&mut ring, &["a"], 0);
    see_fingerprints(&mut ring, &["b"], 1);
    assert_eq!(ring.incident().map(KmsError::code), Some(Code::KeyReplaced));
}
