//! Several unwraps in one request (`batch_input`): associated data per item, a result for each.

use futures_util::stream::{self, StreamExt as _};

use super::{TransitKek, plaintext};
use crate::{
    adapters::vault::{
        client::{Answer, Failure, json, unreadable},
        refusal::{Asked, Refusal},
        wire::{BatchData, BatchItem, Data, DecryptBatchBody, DecryptBody},
    },
    domain::{error::KmsError, secret::Plaintext, time::Monotonic},
    ports::kek::{Kek as _, Unwrap},
};

/// Most items in one request: servers refuse bodies of more than about a thousand JSON strings, of
/// which an item has four.
const ITEMS_MAX: usize = 128;

/// Requests at once where the server takes no batches.
const SINGLES: usize = 8;

/// Unknown versions that are waited for, one after the other.
const VERSIONS_AWAITED: usize = 4;

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

/// What came of one item.
enum Item {
    /// Its outcome.
    Done(Outcome),
    /// This node does not know its key version yet, as far as this answer says.
    NotYet(KmsError),
    /// It failed in a way that says nothing about it.
    Inside,
}

/// Sends all items. Where the node that answered does not know a key version, one of its items is
/// asked for alone, which waits for the version or finds a node that knows it; the others are sent
/// again then, to whoever answered.
async fn together(kek: &TransitKek, items: &[Unwrap<'_>], deadline: Monotonic) -> Vec<Outcome> {
    let mut outcomes = ask(kek, items, deadline).await;
    for _ in 0..VERSIONS_AWAITED {
        let not_yet = |(_, outcome): &(_, &mut Item)| matches!(outcome, Item::NotYet(_));
        let mut behind = items.iter().zip(&mut outcomes).filter(not_yet);
        let Some((item, outcome)) = behind.next() else { break };
        *outcome = Item::Done(kek.unwrap(*item, deadline).await);
        let (again, places): (Vec<_>, Vec<_>) = behind.map(|(item, at)| (*item, at)).unzip();
        if again.is_empty() {
            break;
        }
        for (place, answer) in places.into_iter().zip(ask(kek, &again, deadline).await) {
            *place = answer;
        }
    }
    fill(kek, items, outcomes, deadline).await
}

/// Asks once for all items.
async fn ask(kek: &TransitKek, items: &[Unwrap<'_>], deadline: Monotonic) -> Vec<Item> {
    // What has not even the form of a ciphertext is not sent along.
    let (mut bodies, mut flawed) = (Vec::with_capacity(items.len()), Vec::new());
    for (at, item) in items.iter().enumerate() {
        match kek.decrypt_body(*item) {
            Ok(body) => bodies.push(body),
            Err(error) => flawed.push((at, error)),
        }
    }
    let count = bodies.len();
    let all = |error: KmsError| (0..count).map(|_| Item::Done(Err(error.clone()))).collect();
    let mut outcomes: Vec<_> = match post(kek, bodies, deadline).await {
        Ok(answer) => read(kek, &answer, count).unwrap_or_else(all),
        Err(Failure::Refused(refusal)) if matches!(refusal.status, 400 | 405 | 413) => {
            kek.batch_refused();
            let singly = one_by_one(kek, items, deadline).await;
            return singly.into_iter().map(Item::Done).collect();
        }
        Err(failure) => all(failure.into_error(Asked::Unwrap(kek.unwrap_path()))),
    };
    for (at, error) in flawed {
        outcomes.insert(at, Item::Done(Err(error)));
    }
    outcomes
}

async fn post(
    kek: &TransitKek,
    batch_input: Vec<DecryptBody<'_>>,
    deadline: Monotonic,
) -> Result<Answer, Failure> {
    let body = json(&DecryptBatchBody { batch_input }).map_err(Failure::Unsent)?;
    kek.post(kek.unwrap_path(), body, deadline).await
}

/// What came of each item.
fn read(kek: &TransitKek, answer: &Answer, count: usize) -> Result<Vec<Item>, KmsError> {
    let results = answer.parse::<Data<BatchData>>()?.data.batch_results;
    if results.len() != count {
        return Err(unreadable("it has another number of results than were asked for"));
    }
    let outcome = |item: &BatchItem| {
        if item.error.is_empty() {
            return Item::Done(plaintext(&item.plaintext));
        }
        let refusal = Refusal::of_item(&item.error);
        let (known, not_yet) = (refusal.is_known(), refusal.is_about_a_new_version());
        let error = refusal.into_error(Asked::Unwrap(kek.unwrap_path()));
        match () {
            () if not_yet => Item::NotYet(error),
            () if known => Item::Done(Err(error)),
            () => Item::Inside,
        }
    };
    Ok(results.iter().map(outcome).collect())
}

/// Sends the items without an outcome again, one after the other, until the keeper turns out to be
/// in trouble.
async fn fill(
    kek: &TransitKek,
    items: &[Unwrap<'_>],
    outcomes: Vec<Item>,
    deadline: Monotonic,
) -> Vec<Outcome> {
    let mut trouble: Option<KmsError> = None;
    let mut filled = Vec::with_capacity(items.len());
    for (item, outcome) in items.iter().zip(outcomes) {
        filled.push(match (outcome, &trouble) {
            (Item::Done(outcome), _) => outcome,
            (Item::NotYet(error), _) => Err(error),
            (Item::Inside, Some(error)) => Err(error.clone()),
            (Item::Inside, None) => {
                let outcome = kek.unwrap(*item, deadline).await;
                trouble = outcome.as_ref().err().filter(|e| e.code().is_outage()).cloned();
                outcome
            }
        });
    }
    filled
}
