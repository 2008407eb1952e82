//! Several unwraps in one request (`batch_input`): associated data per item, a result for each.

use futures_util::stream::{self, StreamExt as _};

use super::{
    client::{Answer, Failure, json, unreadable},
    refusal::{Asked, Refusal},
    transit::{TransitKek, plaintext},
    wire::{BatchData, Data, DecryptBatchBody, DecryptBody},
};
use crate::{
    domain::{error::KmsError, secret::Plaintext, time::Monotonic},
    ports::kek::{Kek as _, Unwrap},
};

/// Most items in one request: servers refuse bodies of more than about a thousand JSON strings, of
/// which an item has four.
const ITEMS_MAX: usize = 128;

/// Requests at once where the server takes no batches.
const SINGLES: usize = 8;

type Outcome = Result<Plaintext, KmsError>;

/// Unwraps `sealed`, in as few requests as the server takes.
pub(super) async fn unwrap_many(
    kek: &TransitKek,
    sealed: &[Unwrap<'_>],
    deadline: Monotonic,
) -> Vec<Outcome> {
    let mut outcomes = Vec::with_capacity(sealed.len());
    for items in sealed.chunks(ITEMS_MAX) {
        outcomes.extend(if kek.refuses_batches() || items.len() == 1 {
            one_by_one(kek, items, deadline).await
        } else {
            together(kek, items, deadline).await
        });
    }
    outcomes
}

async fn one_by_one(kek: &TransitKek, items: &[Unwrap<'_>], deadline: Monotonic) -> Vec<Outcome> {
    let mut calls = Vec::with_capacity(items.len());
    for item in items {
        calls.push(kek.unwrap(*item, deadline));
    }
    stream::iter(calls).buffered(SINGLES).collect().await
}

async fn together(kek: &TransitKek, items: &[Unwrap<'_>], deadline: Monotonic) -> Vec<Outcome> {
    // What has not even the form of a ciphertext is not sent along.
    let (mut bodies, mut flawed) = (Vec::with_capacity(items.len()), Vec::new());
    for (at, item) in items.iter().enumerate() {
        match kek.decrypt_body(*item) {
            Ok(body) => bodies.push(body),
            Err(error) => flawed.push((at, error)),
        }
    }
    let count = bodies.len();
    let mut outcomes = match post(kek, bodies, deadline).await {
        Ok(answer) => read(kek, &answer, count)
            .unwrap_or_else(|error| (0..count).map(|_| Some(Err(error.clone()))).collect()),
        Err(Failure::Refused(refusal)) if matches!(refusal.status, 400 | 405 | 413) => {
            kek.batch_refused();
            return one_by_one(kek, items, deadline).await;
        }
        Err(failure) => {
            let error = failure.into_error(Asked::Unwrap(kek.unwrap_path()));
            (0..count).map(|_| Some(Err(error.clone()))).collect()
        }
    };
    for (at, error) in flawed {
        outcomes.insert(at, Some(Err(error)));
    }
    fill(kek, items, outcomes, deadline).await
}

async fn post(
    kek: &TransitKek,
    batch_input: Vec<DecryptBody<'_>>,
    deadline: Monotonic,
) -> Result<Answer, Failure> {
    let body = json(&DecryptBatchBody { batch_input }).map_err(Failure::Unsent)?;
    kek.post(kek.unwrap_path(), body, deadline).await
}

/// The outcome of each item; `None` for one that failed in a way that says nothing about it.
fn read(kek: &TransitKek, answer: &Answer, count: usize) -> Result<Vec<Option<Outcome>>, KmsError> {
    let results = answer.parse::<Data<BatchData>>()?.data.batch_results;
    if results.len() != count {
        return Err(unreadable("it has another number of results than were asked for"));
    }
    let outcome = |item: &super::wire::BatchItem| {
        if item.error.is_empty() {
            return Some(plaintext(&item.plaintext));
        }
        let refusal = Refusal::of_item(&item.error);
        refusal.is_known().then(|| Err(refusal.into_error(Asked::Unwrap(kek.unwrap_path()))))
    };
    Ok(results.iter().map(outcome).collect())
}

/// Sends the items without an outcome again, one after the other, until the keeper turns out to be
/// in trouble.
async fn fill(
    kek: &TransitKek,
    items: &[Unwrap<'_>],
    outcomes: Vec<Option<Outcome>>,
    deadline: Monotonic,
) -> Vec<Outcome> {
    let mut trouble: Option<KmsError> = None;
    let mut filled = Vec::with_capacity(items.len());
    for (item, outcome) in items.iter().zip(outcomes) {
        filled.push(match (outcome, &trouble) {
            (Some(outcome), _) => outcome,
            (None, Some(error)) => Err(error.clone()),
            (None, None) => {
                let outcome = kek.unwrap(*item, deadline).await;
                trouble = outcome.as_ref().err().filter(|e| e.code().is_outage()).cloned();
                outcome
            }
        });
    }
    filled
}
