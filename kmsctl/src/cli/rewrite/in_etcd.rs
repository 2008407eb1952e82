//! What etcd says: which objects are left under another key id, and how all of them are stored at the
//! end.

use std::{
    collections::VecDeque,
    fmt,
    sync::{Mutex, PoisonError},
};

use async_trait::async_trait;

use crate::{
    adapters::etcd::EtcdObjects,
    cli::source::Source,
    domain::{place::Place, problem::Problem, stored::Stored, tally::Tally},
    ports::{
        objects::Objects as _,
        rewriting::{Left, Listed, Page, Refusal, Resource, Scope},
    },
};

/// The objects of one page.
const PAGE: usize = 100;

/// The objects in etcd.
pub(super) struct InEtcd {
    source: Source,
    /// The key id under which objects are to be. Without it, no object is known to be left.
    until: Option<String>,
    /// The list under way.
    walk: Mutex<Option<Walk>>,
}

impl fmt::Debug for InEtcd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("InEtcd").field("source", &self.source).finish_non_exhaustive()
    }
}

/// A list under way.
struct Walk {
    /// The last object that was handed out: the position in the list.
    at: Option<String>,
    /// The prefixes of the objects, with the place of the resource: those that are left to read.
    prefixes: VecDeque<(String, String)>,
    reading: Option<(String, EtcdObjects)>,
    /// The objects that were read and not handed out, with their keys.
    found: VecDeque<(String, Listed)>,
}

impl InEtcd {
    pub(super) fn new(source: Source, until: Option<String>) -> Self {
        Self { source, until, walk: Mutex::new(None) }
    }

    /// Counts the objects of the resources. Returns the name of etcd too.
    ///
    /// # Errors
    /// When etcd cannot be read.
    pub(super) async fn tally(
        &self,
        resources: &[Resource],
        scope: &Scope,
    ) -> Result<(String, Tally), Problem> {
        let mut tally = Tally::default();
        let mut name = String::new();
        for resource in resources {
            for (prefix, below) in self.prefixes(resource, scope) {
                let mut objects = self.source.open(&below, None).await?;
                while let Some(page) = objects.next_page().await? {
                    for object in &page {
                        let stored = Stored::of(&object.value);
                        tally.add(&object.key, &prefix, &stored, object.mod_revision)?;
                    }
                }
                name = objects.name();
            }
        }
        Ok((name, tally))
    }

    /// Returns the prefixes of all objects, each with the beginning of the keys in the scope.
    fn prefixes(&self, resource: &Resource, scope: &Scope) -> Vec<(String, String)> {
        let place = resource.name.in_etcd();
        let namespace = match &scope.namespace {
            Some(namespace) if resource.is_namespaced => format!("{namespace}/"),
            _ => String::new(),
        };
        let mut prefixes: Vec<_> = self
            .source
            .prefixes()
            .iter()
            .map(|prefix| (prefix.clone(), format!("{prefix}{place}/{namespace}")))
            .collect();
        prefixes.sort();
        prefixes
    }

    /// Reads on until the walk has a page, or is at its end.
    async fn read_on(&self, walk: &mut Walk, resource: &Resource) -> Result<(), Problem> {
        while walk.found.len() <= PAGE {
            let Some((prefix, objects)) = &mut walk.reading else {
                let Some((prefix, below)) = walk.prefixes.pop_front() else { return Ok(()) };
                walk.reading = Some((prefix, self.source.open(&below, None).await?));
                continue;
            };
            let Some(page) = objects.next_page().await? else {
                walk.reading = None;
                continue;
            };
            for object in page {
                let is_done = match Stored::of(&object.value) {
                    Stored::KmsV2(envelope) => Some(&envelope.key_id) == self.until.as_ref(),
                    _ => false,
                };
                let Some(place) = Place::of(&object.key, prefix) else { continue };
                let key = String::from_utf8_lossy(&object.key).into_owned();
                if is_done || walk.at.as_ref().is_some_and(|at| key <= *at) {
                    continue;
                }
                let listed = Listed {
                    namespace: place
                        .namespace()
                        .filter(|_| resource.is_namespaced)
                        .map(str::to_owned),
                    name: place.name().to_owned(),
                    // The API server's resourceVersion is the revision of the last write in etcd.
                    version: object.mod_revision.to_string(),
                };
                walk.found.push_back((key, listed));
            }
        }
        Ok(())
    }
}

#[async_trait]
impl Left for InEtcd {
    /// Returns the objects that are not under the key id.
    async fn page(
        &self,
        resource: &Resource,
        scope: &Scope,
        after: Option<&str>,
    ) -> Result<Page, Refusal> {
        let under_way = self.walk.lock().unwrap_or_else(PoisonError::into_inner).take();
        let mut walk = under_way
            .filter(|walk| walk.at.as_deref() == after && after.is_some())
            .unwrap_or_else(|| Walk {
                at: after.map(str::to_owned),
                prefixes: self.prefixes(resource, scope).into(),
                reading: None,
                found: VecDeque::new(),
            });
        let read = self.read_on(&mut walk, resource).await;
        read.map_err(Refusal::NotRead)?;
        let page = walk.found.len().min(PAGE);
        let mut objects = Vec::with_capacity(page);
        for (key, listed) in walk.found.drain(..page) {
            walk.at = Some(key);
            objects.push(listed);
        }
        if walk.found.is_empty() {
            return Ok(Page { objects, next: None, remaining: Some(0) });
        }
        let next = walk.at.clone();
        *self.walk.lock().unwrap_or_else(PoisonError::into_inner) = Some(walk);
        Ok(Page { objects, next, remaining: None })
    }
}
