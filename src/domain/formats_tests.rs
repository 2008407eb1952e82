//! Compares the code with the test vectors of docs/formats.md, which were computed independently.

use super::{
    envelope::{Annotations, AssociatedData},
    key::{Fingerprint, KekVersion, VersionIdentity},
    key_id::{KeyIdentity, Lineage},
    time::UnixTime,
};

const CREATED: UnixTime = UnixTime::from_secs(1_700_000_000);

#[test]
fn key_ids_match_the_documented_vectors() {
    let transit = |namespace, mount, key| Lineage::of_place("transit", &[namespace, mount, key]);
    let local = Lineage::of_place("local", &["000102030405060708090a0b0c0d0e0f"]);
    for (lineage, generation, version, expected) in [
        (transit("", "transit", "k1"), 0, 7, "v7.i3mXGWk7kRIMaqQWOKfv-Q"),
        (transit("admin/team", "team/transit", "prod"), 0, 1, "v1.Fog_dGx1xIunokUPQ0_gfg"),
        (transit("", "transit", "k1"), 1, 7, "v7.w-MPrGDiSjhMI9G4alj-Aw"),
        (Lineage::named("prod-etcd").unwrap(), 0, 7, "v7.9PWbJyORDAru882U8UdikQ"),
        (local, 0, 1, "v1.dEzbQ_fTrGtz07NFanqJVg"),
    ] {
        let identity = KeyIdentity::new(lineage, generation);
        let id = identity.id_of(KekVersion::new(version).unwrap(), CREATED);
        assert_eq!(id.as_str(), expected);
    }
}

#[test]
fn key_ids_of_fingerprints_match_the_documented_vector() {
    let identity = KeyIdentity::new(Lineage::of_place("hsm", &["k1"]), 0);
    let fingerprint = VersionIdentity::Fingerprint(Fingerprint::of(b"0badc0de"));
    let id = identity.id_of(KekVersion::new(7).unwrap(), fingerprint);
    assert_eq!(id.as_str(), "v7.rOgYRarFHKjXGTZ0Ur1Ueg");
}

#[test]
fn associated_data_matches_the_documented_bytes() {
    let page = include_str!("../../docs/formats.md");
    let (_, hex) = page.split_once("in hex:\n\n```\n").unwrap();
    let (hex, _) = hex.split_once("```").unwrap();
    let bytes = AssociatedData::binding("v7.i3mXGWk7kRIMaqQWOKfv-Q", &Annotations::ours());
    let ours =
        bytes.as_bytes().iter().fold(String::new(), |hex, byte| hex + &format!("{byte:02x}"));
    assert_eq!(ours, hex.split_whitespace().collect::<String>());
}
