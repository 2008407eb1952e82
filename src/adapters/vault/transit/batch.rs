//! Several unwraps in one request (`batch_input`): associated data per item, a result for each.

use futures_util::{
    future::BoxFuture,
    stream::{self, StreamExt as _},
};

use super::{TransitKek, plaintext};
use crate::{
    adapters::vault::{
        client::{Failure, json, unreadable},
        refusal::{Asked, Refusal},
        wire::{Batch, BatchItem, DecryptBatchBody, DecryptBody},
    },
    domain::{
        error::{Code, KmsError},
        secret::Plaintext,
        time::Monotonic,
    },
    ports::kek::{Kek as _, Unwrap},
};

/// Most items in one request: servers refuse bodies of more than about a thousand JSON strings, of
/// which an item has four.
const ITEMS_MAX: usize = 128;

/// Items that are asked for alone at one time.
const SINGLES: usize = 8;

type Outcome = Result<Plaintext, KmsError>;

/// What came of one item of a batch.
enum Item {
    /// Its outcome.
    Done(Outcome),
    /// A failure that another request may not meet: this node does not have its key version yet, or
    /// failed inside.
    Alone(KmsError),
}

/// Unwraps `sealed`, in as few requests as the server takes.
pub(super) async fn unwrap_many(
    kek: &TransitKek,
    sealed: &[Unwrap<'_>],
    deadline: Monotonic,
) -> Vec<Outcome> {
    let mut outcomes = Vec::with_capacity(sealed.len());
    for items in sealed.chunks(ITEMS_MAX) {
        let answered = ask(kek, items, deadline).await;
        outcomes.extend(fill(kek, items, answered, deadline).await);
    }
    outcomes
}

/// Asks once for all items; in halves where the server, or what stands in front of it, takes no
/// request of that size or form.
fn ask<'a>(
    kek: &'a TransitKek,
    items: &'a [Unwrap<'a>],
    deadline: Monotonic,
) -> BoxFuture<'a, Vec<Item>> {
    Box::pin(async move {
        if let [item] = items {
            return vec![Item::Done(kek.unwrap(*item, deadline).await)];
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
                // A policy may allow single unwraps and no batches.
                let denied = matches!(&failure, Failure::Refused(said) if said.status == 403);
                let error = failure.into_error(Asked::Unwrap(kek.unwrap_path()));
                let item = if denied { Item::Alone } else { |error| Item::Done(Err(error)) };
                (0..count).map(|_| item(error.clone())).collect()
            }
        };
        for (at, error) in flawed {
            outcomes.insert(at, Item::Done(Err(error)));
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

/// What came of each of `count` items.
fn read(kek: &TransitKek, answer: &Batch, count: usize) -> Vec<Item> {
    let results = &answer.data.batch_results;
    if results.len() != count {
        let error = unreadable("it has another number of results than were asked for");
        return (0..count).map(|_| Item::Done(Err(error.clone()))).collect();
    }
    let outcome = |item: &BatchItem| {
        if item.error.is_empty() {
            return Item::Done(plaintext(&item.plaintext));
        }
        let refusal = Refusal::of_item(&item.error);
        let error = refusal.into_error(Asked::Unwrap(kek.unwrap_path()));
        match error.code() {
            // Not a text that is known to be about the item.
            Code::VersionNotYet | Code::KeeperAnswer => Item::Alone(error),
            code if code.is_outage() => Item::Alone(error),
            _ => Item::Done(Err(error)),
        }
    };
    results.iter().map(outcome).collect()
}

/// Asks for the items without an outcome alone: for the first of them, and for the others at the
/// same time unless the keeper turns out to be in trouble.
async fn fill(
    kek: &TransitKek,
    items: &[Unwrap<'_>],
    answered: Vec<Item>,
    deadline: Monotonic,
) -> Vec<Outcome> {
    let mut alone = Vec::new();
    let mut outcomes = Vec::with_capacity(items.len());
    for (at, (item, answer)) in items.iter().zip(answered).enumerate() {
        outcomes.push(match answer {
            Item::Done(outcome) => outcome,
            Item::Alone(error) => {
                alone.push((at, *item));
                Err(error)
            }
        });
    }
    let Some((first, others)) = alone.split_first() else { return outcomes };
    let mut filled = vec![kek.unwrap(first.1, deadline).await];
    if !filled.iter().any(is_trouble) {
        let mut calls = Vec::with_capacity(others.len());
        for (_, item) in others {
            calls.push(kek.unwrap(*item, deadline));
        }
        filled.extend(stream::iter(calls).buffered(SINGLES).collect::<Vec<_>>().await);
    }
    for ((at, _), outcome) in alone.iter().zip(filled) {
        if let Some(place) = outcomes.get_mut(*at) {
            *place = outcome;
        }
    }
    outcomes
}

/// Whether the outcome of one item says what all others are to expect.
fn is_trouble(outcome: &Outcome) -> bool {
    let code = outcome.as_ref().err().map(KmsError::code);
    code.is_some_and(|code| code.is_outage() || code == Code::PermissionDenied)
}
