//! Several unwraps in one request (`batch_input`): associated data per item, a result for each.

use futures_util::future::BoxFuture;

use super::{TransitKek, plaintext};
use crate::{
    adapters::vault::{
        client::{Failure, json, unreadable},
        refusal::{Asked, Refusal},
        wire::{Batch, BatchItem, DecryptBatchBody, DecryptBody},
    },
    domain::{error::KmsError, secret::Plaintext, time::Monotonic},
    ports::kek::{Kek as _, Unwrap},
};

/// Most items in one request: servers refuse bodies of more than about a thousand JSON strings, of
/// which an item has four.
const ITEMS_MAX: usize = 128;

type Outcome = Result<Plaintext, KmsError>;

/// Unwraps `sealed`, in as few requests as the server takes.
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

/// Asks once for all items; in halves where the server, or what stands in front of it, takes no
/// request of that size or form.
fn ask<'a>(
    kek: &'a TransitKek,
    items: &'a [Unwrap<'a>],
    deadline: Monotonic,
) -> BoxFuture<'a, Vec<Outcome>> {
    Box::pin(async move {
        if let [item] = items {
            return vec![kek.unwrap(*item, deadline).await];
        }
        // What does not have the form of a ciphertext is not sent along.
        let (mut bodies, mut flawed) = (Vec::with_capacity(items.len()), Vec::new());
        for (at, item) in items.iter().enumerate() {
            match kek.decrypt_body(*item) {
                Ok(body) => bodies.push(body),
                Err(error) => flawed.push((at, error)),
            }
        }
        let count = bodies.len();
        let mut outcomes = match post(kek, bodies, deadline).await {
            Ok(answer) => read(kek, &answer, count),
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

/// Whether a smaller request may pass, or one without the item that spoils it.
fn is_about_the_form(failure: &Failure) -> bool {
    match failure {
        Failure::Intermediary { status, .. } => *status == 413,
        Failure::Refused(refusal) => {
            matches!(refusal.status, 400 | 413) && !refusal.is_about_the_node()
        }
        Failure::Unsent(_) | Failure::Lost(_) | Failure::Redirected { .. } => false,
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

/// Returns the outcome of each of `count` items.
fn read(kek: &TransitKek, answer: &Batch, count: usize) -> Vec<Outcome> {
    let results = &answer.data.batch_results;
    if results.len() != count {
        let error = unreadable("it has another number of results than were asked for");
        return (0..count).map(|_| Err(error.clone())).collect();
    }
    let outcome = |item: &BatchItem| {
        if item.error.is_empty() {
            return plaintext(&item.plaintext);
        }
        Err(Refusal::of_item(&item.error).into_error(Asked::Unwrap(kek.unwrap_path())))
    };
    results.iter().map(outcome).collect()
}
