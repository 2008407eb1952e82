//! Drives a run to its end over the ports.

use std::time::Duration;

use futures_util::{StreamExt as _, stream::FuturesUnordered};
use tokio::time::{MissedTickBehavior, interval};

use super::{patience::Patience, progress::Progress};
use crate::{
    domain::{
        problem::Problem,
        rewrite::{Ending, Fate, Run},
        tally::Tally,
    },
    ports::rewriting::{Left, Listed, Refusal, Resource, Scope, Storage},
};

/// How often an object is tried that others write at the same time.
const TURNS: usize = 5;

/// How often a list starts again in a row.
const MAX_RESTARTS: u32 = 3;

/// How fast a run may go.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// The time from one object to the next.
    pub(super) interval: Duration,
    /// How many requests are under way at once.
    pub(super) parallel: usize,
}

/// Drives a run to its end.
pub(super) struct Driver<'a> {
    pub(super) left: &'a dyn Left,
    pub(super) storage: &'a dyn Storage,
    pub(super) progress: &'a dyn Progress,
    pub(super) resources: &'a [Resource],
    pub(super) scope: &'a Scope,
    pub(super) limits: Limits,
    pub(super) patience: Patience<'a>,
}

impl Driver<'_> {
    /// Makes passes until one changes nothing.
    ///
    /// # Errors
    /// When the API server gives no answer for too long, or refuses all work. `run` can go on later.
    pub(super) async fn drive(&self, run: &mut Run) -> Result<Ending, Problem> {
        loop {
            let mut restarts = 0;
            while let Some(resource) = run.resource().and_then(|at| self.resources.get(at)) {
                self.page(run, resource, &mut restarts).await?;
            }
            let ending = run.end_pass();
            if ending != Ending::Again {
                return Ok(ending);
            }
            self.progress.page_done(run, None)?;
        }
    }

    /// Does the next page of a resource.
    async fn page(
        &self,
        run: &mut Run,
        resource: &Resource,
        restarts: &mut u32,
    ) -> Result<(), Problem> {
        let after = run.after().map(str::to_owned);
        let listed =
            self.patience.call(|| self.left.page(resource, self.scope, after.as_deref())).await?;
        let page = match listed {
            Ok(page) => page,
            Err(Refusal::Expired { again: Some(again) }) if *restarts < MAX_RESTARTS => {
                *restarts += 1;
                run.turn_page(Some(again));
                return Ok(());
            }
            Err(Refusal::Expired { .. }) if *restarts < MAX_RESTARTS => {
                *restarts += 1;
                run.restart_resource();
                return Ok(());
            }
            Err(Refusal::Unreadable(key)) => {
                run.skip_resource(format!(
                    "the API server cannot decrypt {key}, and cannot list the resource with it"
                ));
                return self.progress.page_done(run, None);
            }
            Err(other) => return Err(list_refused(resource, &other)),
        };
        *restarts = 0;
        self.objects(run, resource, page.objects).await?;
        run.turn_page(page.next);
        self.progress.page_done(run, page.remaining)
    }

    /// Stores the objects of a page again.
    async fn objects(
        &self,
        run: &mut Run,
        resource: &Resource,
        objects: Vec<Listed>,
    ) -> Result<(), Problem> {
        let mut pace = interval(self.limits.interval);
        pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut running = FuturesUnordered::new();
        let mut waiting = objects.into_iter();
        loop {
            if running.len() < self.limits.parallel
                && let Some(object) = waiting.next()
            {
                pace.tick().await;
                running.push(self.object(resource, object));
                continue;
            }
            let Some(done) = running.next().await else { return Ok(()) };
            let (name, fate) = done?;
            run.record(name, fate);
            self.progress.object_done();
        }
    }

    /// Stores one object again. Returns its name and what became of it.
    async fn object(
        &self,
        resource: &Resource,
        mut object: Listed,
    ) -> Result<(String, Fate), Problem> {
        let name = match &object.namespace {
            Some(namespace) => format!("{namespace}/{}", object.name),
            None => object.name.clone(),
        };
        for _ in 0..TURNS {
            let refusal = match self.patience.call(|| self.storage.store(resource, &object)).await?
            {
                Ok(version) if version == object.version => return Ok((name, Fate::Fresh)),
                Ok(_) => return Ok((name, Fate::Rewritten)),
                Err(refusal) => refusal,
            };
            if refusal != Refusal::Changed {
                return Ok((name, fate(refusal)));
            }
            match self.patience.call(|| self.storage.version(resource, &object)).await? {
                Ok(version) if version == object.version => {
                    let why = "409 Conflict, and nobody else has written it".to_owned();
                    return Ok((name, Fate::Failed(why)));
                }
                Ok(version) => object.version = version,
                Err(refusal) => return Ok((name, fate(refusal))),
            }
        }
        Ok((name, Fate::ByOthers))
    }
}

/// Checks that etcd has objects of each resource of which the API server has some. An etcd without
/// them would show that nothing is left.
///
/// # Errors
/// `not-in-etcd` when etcd, in which `in_etcd` was counted, has no object of such a resource. The
/// errors of a list.
pub(super) async fn compare(
    server: &dyn Left,
    patience: &Patience<'_>,
    resources: &[Resource],
    scope: &Scope,
    in_etcd: &Tally,
) -> Result<(), Problem> {
    for resource in resources {
        let place = resource.name.in_etcd();
        if in_etcd.resources().any(|(counted, _)| counted == place) {
            continue;
        }
        match patience.call(|| server.page(resource, scope, None)).await? {
            Ok(page) if page.objects.is_empty() => {}
            Ok(_) | Err(Refusal::Unreadable(_)) => {
                return Err(Problem::new(
                    "not-in-etcd",
                    format!(
                        "the API server has objects of {}, and this etcd has none of them below \
                         its prefix and {place}/, so it proves nothing",
                        resource.name
                    ),
                    "check --etcd-servers and --etcd-prefix, and the API server's \
                     --etcd-servers-overrides; for a resource of another server, such as that of \
                     OpenShift, leave out --until-key-id and the flags of etcd",
                ));
            }
            Err(other) => return Err(list_refused(resource, &other)),
        }
    }
    Ok(())
}

/// Returns what a refusal means for its object.
fn fate(refusal: Refusal) -> Fate {
    match refusal {
        Refusal::Gone => Fate::Gone,
        Refusal::Rejected(why) => Fate::Failed(why),
        Refusal::Internal(why) => Fate::Failed(format!("the API server fails with {why}")),
        Refusal::Unreadable(_) => Fate::Failed("the API server cannot decrypt it".to_owned()),
        other => Fate::Failed(format!("the answer is not expected: {other:?}")),
    }
}

fn list_refused(resource: &Resource, refusal: &Refusal) -> Problem {
    let why = match refusal {
        Refusal::Rejected(why) | Refusal::Internal(why) => why.clone(),
        Refusal::Gone => "it is not served any more".to_owned(),
        Refusal::Expired { .. } => "its positions expire at once".to_owned(),
        other => format!("the answer is not expected: {other:?}"),
    };
    Problem::new(
        "list-refused",
        format!("cannot list {}: {why}", resource.name),
        "check --selector and --namespace, and the log of the API server",
    )
}

#[cfg(test)]
#[path = "driver_tests.rs"]
mod tests;
