//! Sends several unwraps in one request (`batch_input`), with associated data and a result for each
//! item.

use futures_util::future::BoxFuture;

use super::{TransitKek, plaintext};
use crate::{
    adapters::vault::{
        refusal::{Asked, Refusal},
        servers::{Failure, json, unreadable},
        wire::{Batch, BatchItem, DecryptBatchBody, DecryptBody},
    },
    domain::{
        error::KmsError,
        secret::{Plaintext, RequestId},
        time::Monotonic,
    },
    ports::kek::{Kek as _, Unwrap},
};

/// The largest number of items in one request. Servers refuse bodies with more than about a
/// thousand JSON strings, and an item has six.
pub(super) const ITEMS_MAX: usize = 128;

type Outcome = Result<Plaintext, KmsError>;

/// Unwraps `sealed` in as few requests as the server accepts. Returns the outcomes in the order of
/// `sealed`.
pub(super) async fn unwrap_many(
    kek: &TransitKek,
    sealed: &[Unwrap<'_>],
    deadline: Monotonic,
) -> Vec<Outcome> {
    let mut outcomes = Vec::with_capacity(sealed.len());
    for items in sealed.chunks(ITEMS_MAX) {
        outcomes.extend(ask(kek, items, deadline).await);
    }
    outcomes
}

/// Sends one request for all items. If the server or a proxy refuses its size or form, sends each
/// half on its own.
fn ask<'a>(
    kek: &'a TransitKek,
    items: &'a [Unwrap<'a>],
    deadline: Monotonic,
) -> BoxFuture<'a, Vec<Outcome>> {
    Box::pin(async move {
        if let [item] = items {
            return vec![kek.unwrap(*item, deadline).await];
        }
        // An item that does not have the form of a ciphertext is not sent.
        let (mut bodies, mut flawed) = (Vec::with_capacity(items.len()), Vec::new());
        for (at, item) in items.iter().enumerate() {
            match kek.decrypt_body(*item) {
                Ok(body) => bodies.push(body),
                Err(error) => flawed.push((at, error)),
            }
        }
        let count = bodies.len();
        let mut references = Vec::with_capacity(count);
        for (at, body) in bodies.iter_mut().enumerate() {
            body.reference = reference(at, body.ciphertext);
            references.push(body.reference.clone());
        }
        let mut outcomes = match post(kek, bodies, deadline).await {
            Ok(answer) => read(kek, &answer, &references),
            Err(failure) if is_about_the_form(&failure) => {
                let (first, second) = items.split_at(items.len() / 2);
                let mut outcomes = ask(kek, first, deadline).await;
                outcomes.extend(ask(kek, second, deadline).await);
                return outcomes;
            }
            Err(failure) => {
                let error = failure.into_error(Asked::Unwrap(kek.unwrap_path()));
                (0..count).map(|_| Err(error.clone())).collect()
            }
        };
        for (at, error) in flawed {
            outcomes.insert(at, Err(error));
        }
        outcomes
    })
}

/// Returns whether a smaller request, or a request without the invalid item, may succeed.
fn is_about_the_form(failure: &Failure) -> bool {
    match failure {
        Failure::Intermediary { status, .. } => *status == 413,
        Failure::Refused(refusal) => {
            (matches!(refusal.status, 400 | 413) || refusal.exceeds_a_json_limit())
                && !refusal.is_about_the_node()
        }
        Failure::Unsent(_)
        | Failure::Lost(_)
        | Failure::Redirected { .. }
        | Failure::Disregarded(_) => false,
    }
}

async fn post(
    kek: &TransitKek,
    batch_input: Vec<DecryptBody<'_>>,
    deadline: Monotonic,
) -> Result<Batch, Failure> {
    let body = json(&DecryptBatchBody { batch_input }).map_err(Failure::Unsent)?;
    let answer = kek.post(kek.unwrap_path(), body, deadline).await?;
    Ok(answer.value)
}

/// Returns the reference of the item `at`: its index and the start of its ciphertext, which is the
/// nonce. With the nonce, a result of another batch is detected too.
fn reference(at: usize, ciphertext: &str) -> String {
    let nonce: String = ciphertext.splitn(3, ':').skip(2).flat_map(str::chars).take(16).collect();
    format!("{at}.{nonce}")
}

/// Returns the outcome of each item of a batch, in the order of their `references`.
/// Refuses a result that names another item, because a server or proxy may mix up results. A server
/// that knows references returns all of them, so one result with a reference makes a result without
/// one suspect.
fn read(kek: &TransitKek, answer: &Batch, references: &[String]) -> Vec<Outcome> {
    let request_id = answer.request_id.as_deref().map(RequestId::from);
    let results = &answer.data.batch_results;
    if results.len() != references.len() {
        let error = unreadable("the number of its results differs from the number of items");
        return references.iter().map(|_| Err(error.clone())).collect();
    }
    let has_references = results.iter().any(|item| !item.reference.is_empty());
    let outcome = |(item, reference): (&BatchItem, &String)| {
        if has_references && item.reference != *reference {
            return Err(unreadable("it has the result of another item"));
        }
        if item.error.is_empty() {
            return Ok(plaintext(&item.plaintext)?.with_request_id(request_id.clone()));
        }
        Err(Refusal::of_item(&item.error).into_error(Asked::Unwrap(kek.unwrap_path())))
    };
    results.iter().zip(references).map(outcome).collect()
}
