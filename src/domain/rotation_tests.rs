use super::{
    super::{key::Fingerprint, key_id::Lineage},
    *,
};

const DELAY: Duration = Duration::from_mins(1);
const START: i64 = 1_000_000;

fn v(number: u32) -> KekVersion {
    KekVersion::new(number).unwrap()
}

fn ring() -> KeyRing {
    let identity = KeyIdentity::new(Lineage::of_place("test", &["k"]), 0);
    KeyRing::new(identity, DELAY, BTreeMap::new())
}

fn snapshot(versions: &[(u32, i64)]) -> KekSnapshot {
    KekSnapshot::new(
        versions.iter().map(|(n, created)| (v(*n), UnixTime::from_secs(*created).into())),
    )
}

fn at(seconds: u64) -> Monotonic {
    Monotonic::at(Duration::from_secs(seconds))
}

/// Gives the ring an answer at `seconds`, when the local clock reads `START + seconds`.
fn observe(ring: &mut KeyRing, versions: &[(u32, i64)], seconds: u64) -> Vec<RingChange> {
    let wall = UnixTime::from_secs(START).after(Duration::from_secs(seconds));
    ring.observe(snapshot(versions), at(seconds), wall)
}

fn writes(ring: &KeyRing, seconds: u64) -> u32 {
    ring.writer(at(seconds)).unwrap().version.get()
}

#[test]
fn no_version_writes_before_the_first_answer() {
    assert_eq!(ring().writer(at(0)).unwrap_err().code(), Code::Starting);
}

#[test]
fn a_fresh_key_writes_at_once() {
    let mut ring = ring();
    observe(&mut ring, &[(1, START)], 0);
    assert_eq!(writes(&ring, 0), 1);
}

#[test]
fn a_key_rotated_just_before_the_first_start_writes_with_the_older_version() {
    let mut ring = ring();
    observe(&mut ring, &[(1, START - 1), (2, START)], 1);
    assert_eq!(writes(&ring, 1), 1);
    assert_eq!(writes(&ring, 61), 2);
}

#[test]
fn nodes_take_over_at_the_same_moment_whenever_they_polled() {
    let (mut early, mut late) = (ring(), ring());
    for ring in [&mut early, &mut late] {
        observe(ring, &[(1, START - 1_000)], 0);
    }
    observe(&mut early, &[(1, START - 1_000), (2, START + 100)], 101);
    observe(&mut late, &[(1, START - 1_000), (2, START + 100)], 129);
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
fn a_lagging_node_changes_nothing() {
    let mut ring = ring();
    observe(&mut ring, &[(1, START - 1_000), (2, START - 500)], 0);
    let changes = observe(&mut ring, &[(1, START - 1_000)], 15);
    assert_eq!(changes, [RingChange::Lagging { answered: v(1), known: v(2) }]);
    assert_eq!(writes(&ring, 15), 2);
    observe(&mut ring, &[(1, START - 1_000), (2, START - 500)], 30);
    observe(&mut ring, &[(1, START - 1_000)], 80);
    assert_eq!(ring.incident(), None, "the current answer in between restarts the count");
}

#[test]
fn a_lasting_rollback_is_an_incident_until_the_key_is_restored() {
    let mut ring = ring();
    observe(&mut ring, &[(1, START - 1_000), (2, START - 500)], 0);
    observe(&mut ring, &[(1, START - 1_000)], 10);
    observe(&mut ring, &[(1, START - 1_000)], 70);
    assert_eq!(ring.incident().map(KmsError::code), Some(Code::KeyRolledBack));
    let changes = observe(&mut ring, &[(1, START - 1_000), (2, START - 500)], 80);
    assert_eq!(changes, [RingChange::IncidentCleared]);
    assert_eq!(writes(&ring, 80), 2);
}

#[test]
fn a_replaced_key_is_an_incident_at_once_and_is_reported_once() {
    let mut ring = ring();
    observe(&mut ring, &[(1, START - 1_000)], 0);
    let changes = observe(&mut ring, &[(1, START + 5)], 15);
    assert!(
        matches!(changes.as_slice(), [RingChange::IncidentRaised(e)] if e.code() == Code::KeyReplaced)
    );
    assert!(observe(&mut ring, &[(1, START + 5)], 30).is_empty());
    assert_eq!(ring.writer(at(30)).unwrap_err().code(), Code::KeyReplaced);
}

#[test]
fn a_future_creation_time_counts_from_the_first_sight() {
    let mut ring = ring();
    observe(&mut ring, &[(1, START - 1_000)], 0);
    observe(&mut ring, &[(1, START - 1_000), (2, START + 3_600)], 10);
    assert_eq!(writes(&ring, 69), 1);
    assert_eq!(writes(&ring, 70), 2);
}

#[test]
fn corrects_a_wrong_local_clock_by_the_keepers_clock() {
    let mut ring = ring();
    let mut seen = snapshot(&[(1, START - 1_000), (2, START)]);
    seen.keeper_time = Some(UnixTime::from_secs(START + 10));
    ring.observe(seen, at(10), UnixTime::from_secs(START - 3_600));
    assert_eq!(writes(&ring, 59), 1);
    assert_eq!(writes(&ring, 60), 2);
}

#[test]
fn a_clock_set_back_does_not_change_the_writer() {
    let mut ring = ring();
    let versions = [(1, START - 900), (2, START)];
    ring.observe(snapshot(&versions), at(58), UnixTime::from_secs(START + 60));
    assert_eq!(writes(&ring, 58), 2);
    ring.observe(snapshot(&versions), at(59), UnixTime::from_secs(START + 59));
    assert_eq!(writes(&ring, 59), 2);
}

#[test]
fn minimum_versions_limit_the_writer() {
    let mut ring = ring();
    let mut seen = snapshot(&[(1, START - 900), (2, START - 800), (3, START)]);
    seen.min_encryption = Some(v(3));
    ring.observe(seen, at(1), UnixTime::from_secs(START + 1));
    assert_eq!(writes(&ring, 1), 3, "no allowed version is old enough, so the lowest one writes");
}

#[test]
fn ids_resolve_to_known_newer_retired_or_unknown() {
    let mut ring = ring();
    observe(&mut ring, &[(1, START - 900), (2, START - 800)], 0);
    let first = ring.identity.id_of(v(1), UnixTime::from_secs(START - 900));
    assert_eq!(ring.resolve(first.as_str()), Resolution::Known(v(1)));
    let foreign = ring.identity.id_of(v(1), UnixTime::from_secs(START - 899));
    assert_eq!(ring.resolve(foreign.as_str()), Resolution::Unknown);
    let newer = ring.identity.id_of(v(3), UnixTime::from_secs(START));
    assert_eq!(ring.resolve(newer.as_str()), Resolution::Newer(v(3)));
    assert_eq!(ring.resolve("1"), Resolution::Unknown);
    observe(&mut ring, &[(2, START - 800)], 15);
    assert_eq!(ring.resolve(first.as_str()), Resolution::Archived(v(1)));
}

#[test]
fn an_unseen_id_below_the_minimum_version_is_retired() {
    let mut ring = ring();
    observe(&mut ring, &[(3, START - 900)], 0);
    let earlier = ring.identity.id_of(v(1), UnixTime::from_secs(START - 2_000));
    assert_eq!(ring.resolve(earlier.as_str()), Resolution::Retired(v(1)));
}

#[test]
fn after_two_rotations_the_newest_aged_version_writes() {
    let mut ring = ring();
    observe(&mut ring, &[(1, START - 900)], 0);
    let changes = observe(&mut ring, &[(1, START - 900), (2, START + 1), (3, START + 2)], 62);
    assert_eq!(changes, [RingChange::Appeared(v(2)), RingChange::Appeared(v(3))]);
    assert_eq!(writes(&ring, 62), 3);
}

#[test]
fn uses_the_local_clock_when_the_keeper_reports_no_time() {
    let mut ring = ring();
    observe(&mut ring, &[(1, START - 900), (2, START)], 10);
    assert_eq!((writes(&ring, 59), writes(&ring, 60)), (1, 2));
}

#[test]
fn a_raised_minimum_replaces_the_writer_at_once() {
    let mut ring = ring();
    observe(&mut ring, &[(1, START - 900), (2, START)], 1);
    assert_eq!(writes(&ring, 1), 1);
    let changes = observe(&mut ring, &[(2, START)], 2);
    assert_eq!(changes, [RingChange::Retired(v(1))]);
    assert_eq!(writes(&ring, 2), 2, "the lowest allowed version writes at any age");
}

#[test]
fn a_minimum_below_the_writer_changes_nothing() {
    let mut ring = ring();
    let mut seen = snapshot(&[(2, START - 900), (3, START - 800)]);
    seen.min_encryption = Some(v(2));
    ring.observe(seen, at(1), UnixTime::from_secs(START + 1));
    assert_eq!(writes(&ring, 1), 3);
}

#[test]
fn a_known_version_that_no_longer_unwraps_is_archived() {
    let mut ring = ring();
    observe(&mut ring, &[(1, START - 900), (2, START - 800), (3, START - 700)], 0);
    let trimmed = ring.identity.id_of(v(2), UnixTime::from_secs(START - 800));
    observe(&mut ring, &[(3, START - 700)], 15);
    assert_eq!(ring.resolve(trimmed.as_str()), Resolution::Archived(v(2)));
    assert_eq!(ring.incident(), None);
}

#[test]
fn an_accepted_id_resolves_to_its_mapped_version() {
    let mut ring = ring();
    ring.accepted.insert("v1.from-before".to_owned(), v(1));
    observe(&mut ring, &[(1, START - 900)], 0);
    assert_eq!(ring.resolve("v1.from-before"), Resolution::Known(v(1)));
    ring.accepted.insert("mistyped".to_owned(), v(9));
    assert_eq!(ring.resolve("mistyped"), Resolution::Newer(v(9)));
}

/// Checklist 55: the wall clock jumps by an hour, with a keeper that reports its time and with one
/// that does not.
#[test]
fn a_wall_clock_that_jumps_changes_neither_the_writer_nor_its_id() {
    let versions = [(1, START - 1_000), (2, START + 100)];
    for jump in [-3_600, 3_600_i64] {
        for reports_time in [true, false] {
            let mut ring = ring();
            observe(&mut ring, &versions, 170);
            let before = ring.writer(at(170)).unwrap();
            for second in 171..200 {
                let mut seen = snapshot(&versions);
                let elapsed = i64::try_from(second).unwrap();
                seen.keeper_time = reports_time.then(|| UnixTime::from_secs(START + elapsed));
                ring.observe(seen, at(second), UnixTime::from_secs(START + elapsed + jump));
                assert_eq!(ring.writer(at(second)).unwrap(), before, "{jump} {reports_time}");
            }
        }
    }
}

/// The wall clock jumps while a version waits for its takeover. The keeper reports its time.
#[test]
fn a_wall_clock_that_jumps_does_not_move_a_takeover() {
    let versions = [(1, START - 1_000), (2, START + 100)];
    for jump in [-3_600, 3_600_i64] {
        let mut ring = ring();
        observe(&mut ring, &versions, 110);
        let mut seen = snapshot(&versions);
        seen.keeper_time = Some(UnixTime::from_secs(START + 120));
        ring.observe(seen, at(120), UnixTime::from_secs(START + 120 + jump));
        assert_eq!((writes(&ring, 159), writes(&ring, 160)), (1, 2), "{jump}");
    }
}

fn fingerprinted(names: &[&str]) -> KekSnapshot {
    let identity = |name: &&str| VersionIdentity::Fingerprint(Fingerprint::of(name.as_bytes()));
    KekSnapshot::new((1..).map(v).zip(names.iter().map(identity)))
}

fn observe_fingerprints(ring: &mut KeyRing, names: &[&str], seconds: u64) -> Vec<RingChange> {
    let wall = UnixTime::from_secs(START).after(Duration::from_secs(seconds));
    ring.observe(fingerprinted(names), at(seconds), wall)
}

#[test]
fn a_version_without_a_creation_time_ages_from_the_first_sight() {
    let mut ring = ring();
    observe_fingerprints(&mut ring, &["a", "b"], 0);
    assert_eq!(writes(&ring, 0), 2, "the versions of the first read count as old");
    assert_eq!(ring.versions()[1].writes_from, None);
    observe_fingerprints(&mut ring, &["a", "b", "c"], 100);
    assert_eq!(writes(&ring, 100), 2);
    assert_eq!(ring.next_takeover(v(2), at(100)), Some((v(3), DELAY)));
    assert_eq!(writes(&ring, 100 + DELAY.as_secs()), 3);
}

#[test]
fn a_changed_fingerprint_is_a_replaced_key() {
    let mut ring = ring();
    observe_fingerprints(&mut ring, &["a"], 0);
    observe_fingerprints(&mut ring, &["b"], 1);
    assert_eq!(ring.incident().map(KmsError::code), Some(Code::KeyReplaced));
}
