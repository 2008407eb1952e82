//! Selects and reads the SVIDs in an answer of the agent.

use std::mem;

use super::{
    problem::Problem,
    wire::{JwtsvidResponse, X509svidResponse},
};
use crate::{
    domain::secret::{Plaintext, Secret},
    ports::workload_identity::IdentityCertificate,
};

/// The most certificates of one chain.
const CHAIN_MAX: usize = 16;

/// Returns the X.509-SVID with the ID `id`, or the first one without an `id`.
///
/// # Errors
/// When no SVID has that ID, or the SVID holds no certificate or no key.
pub(super) fn certificate(
    answer: X509svidResponse,
    id: Option<&str>,
) -> Result<IdentityCertificate, Problem> {
    let mut svid = selected(answer.svids, |svid| &svid.spiffe_id, id)?;
    let key = Plaintext::new(mem::take(&mut svid.x509_svid_key));
    let chain = chain(&svid.x509_svid).ok_or_else(|| {
        Problem::Unusable("an X.509-SVID whose chain is not valid DER".to_owned())
    })?;
    if key.is_empty() {
        return Err(Problem::Unusable("an X.509-SVID without a private key".to_owned()));
    }
    Ok(IdentityCertificate { id: svid.spiffe_id, chain, key })
}

/// Returns the JWT-SVID with the ID `id`, or the first one without an `id`.
///
/// # Errors
/// When no SVID has that ID, or the SVID holds no JWT.
pub(super) fn jwt(answer: JwtsvidResponse, id: Option<&str>) -> Result<Secret, Problem> {
    let svid = selected(answer.svids, |svid| &svid.spiffe_id, id)?;
    let jwt = Secret::new(svid.svid);
    if jwt.expose().is_empty() || !jwt.expose().bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(Problem::Unusable("a JWT-SVID that is not a JWT".to_owned()));
    }
    Ok(jwt)
}

fn selected<T>(all: Vec<T>, id_of: fn(&T) -> &str, id: Option<&str>) -> Result<T, Problem> {
    let count = all.len();
    let found = all.into_iter().find(|svid| id.is_none_or(|id| id_of(svid) == id));
    found.ok_or_else(|| match id {
        Some(id) if count > 0 => Problem::OtherIds(count, id.to_owned()),
        _ => Problem::Unusable("no SVID".to_owned()),
    })
}

/// Splits DER certificates that lie one after the other. Returns `None` if `bytes` is not at least
/// one and at most [`CHAIN_MAX`] complete ASN.1 sequences. Does not look into them.
fn chain(mut bytes: &[u8]) -> Option<Vec<Vec<u8>>> {
    let mut chain = Vec::new();
    while !bytes.is_empty() {
        let (one, rest) = bytes.split_at_checked(sequence_len(bytes)?)?;
        chain.push(one.to_vec());
        bytes = rest;
    }
    (!chain.is_empty() && chain.len() <= CHAIN_MAX).then_some(chain)
}

/// Returns the length in bytes of the ASN.1 sequence at the start of `bytes` (X.690, section 8.1).
fn sequence_len(bytes: &[u8]) -> Option<usize> {
    const SEQUENCE: u8 = 0x30;
    let (&[SEQUENCE, first], rest) = bytes.split_first_chunk::<2>()? else { return None };
    let first = usize::from(first);
    if first < 0x80 {
        return first.checked_add(2);
    }
    let count = first - 0x80;
    // Indefinite lengths are not DER. Four bytes are more than any answer holds.
    if !(1..=4).contains(&count) {
        return None;
    }
    let length = rest.get(..count)?.iter().try_fold(0_usize, |length, byte| {
        length.checked_mul(256)?.checked_add(usize::from(*byte))
    })?;
    length.checked_add(2)?.checked_add(count)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::adapters::spiffe::wire::{Jwtsvid, X509svid};

    fn x509(id: &str, chain: &[u8], key: &[u8]) -> X509svid {
        X509svid { spiffe_id: id.into(), x509_svid: chain.into(), x509_svid_key: key.into() }
    }

    #[test]
    fn splits_a_chain_with_short_and_long_lengths() {
        let short = [0x30, 2, 7, 7];
        let long = [&[0x30, 0x82, 1, 0][..], &[9; 256]].concat();
        let both = [&short[..], &long].concat();
        assert_eq!(chain(&both).unwrap(), [short.to_vec(), long]);
    }

    #[test]
    fn rejects_a_chain_that_is_not_der() {
        for bytes in [
            &[][..],
            &[0x30],
            &[0x31, 0],
            &[0x30, 1],
            &[0x30, 0x80, 0, 0],
            &[0x30, 0x82, 1],
            &[0x30, 0x85, 1, 1, 1, 1, 1],
            &[0x30, 0x84, 255, 255, 255, 255],
            &[0x30, 0, 0x30],
            &[0x30, 0].repeat(CHAIN_MAX + 1),
        ] {
            assert_eq!(chain(bytes), None, "{bytes:?}");
        }
    }

    #[test]
    fn takes_the_wanted_svid_or_the_first() {
        let both = || X509svidResponse {
            svids: vec![
                x509("spiffe://a/1", &[0x30, 0], &[1]),
                x509("spiffe://a/2", &[0x30, 0], &[2]),
            ],
        };
        assert_eq!(certificate(both(), None).unwrap().id, "spiffe://a/1");
        let second = certificate(both(), Some("spiffe://a/2")).unwrap();
        assert_eq!((second.id.as_str(), second.key.expose()), ("spiffe://a/2", &[2][..]));
        let missing = certificate(both(), Some("spiffe://a/3")).unwrap_err();
        assert!(matches!(missing, Problem::OtherIds(2, _)), "{missing:?}");
    }

    #[test]
    fn rejects_svids_without_content() {
        let of = |chain: &[u8], key: &[u8]| X509svidResponse { svids: vec![x509("i", chain, key)] };
        assert!(certificate(of(&[0x30, 0], &[]), None).is_err());
        assert!(certificate(of(&[], &[1]), None).is_err());
        assert!(certificate(X509svidResponse::default(), None).is_err());
        for svid in ["", "a b", "a\nb"] {
            let svids = vec![Jwtsvid { spiffe_id: "i".into(), svid: svid.into() }];
            assert!(jwt(JwtsvidResponse { svids }, None).is_err(), "{svid}");
        }
    }
}
