//! Outbound ports of `rewrite`: which objects may be left under an old key id, and the API server
//! that stores an object again.

use std::{fmt::Debug, time::Duration};

use async_trait::async_trait;

use crate::domain::{problem::Problem, resource::ResourceName};

/// A resource as the API server serves it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resource {
    /// Its name.
    pub name: ResourceName,
    /// The version of its group that the API server prefers, such as `v1`.
    pub version: String,
    /// Whether its objects are in namespaces.
    pub is_namespaced: bool,
}

/// Which objects of a resource are meant.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scope {
    /// The namespace, or `None` for all.
    pub namespace: Option<String>,
    /// A label selector in the API server's syntax, or `None` for all.
    pub selector: Option<String>,
}

/// An object, without its content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// The namespace, or `None` for an object without one.
    pub namespace: Option<String>,
    /// The name.
    pub name: String,
    /// The `resourceVersion` when it was listed.
    pub version: String,
}

/// Some objects of a resource.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Page {
    /// The objects.
    pub objects: Vec<Listed>,
    /// Where the next page begins. `None` on the last page.
    pub next: Option<String>,
    /// How many objects follow this page, if that is known.
    pub remaining: Option<u64>,
}

/// Why a request had no success.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The object does not exist any more.
    Gone,
    /// Somebody else has written the object since it was listed.
    Changed,
    /// The position of a list is too old. `again` is a position after the same object, if the API
    /// server gave one.
    Expired {
        /// Where to go on.
        again: Option<String>,
    },
    /// The API server has too much to do. It asks for a pause.
    Busy(Duration),
    /// There was no answer, or one that says nothing about this object. The text says which.
    Unavailable(String),
    /// An internal error of the API server. It may be about this object alone. The text has no part
    /// of the answer.
    Internal(String),
    /// The user may not do this. The text names the verb.
    Forbidden(String),
    /// The credentials are missing or expired.
    Unauthenticated,
    /// This object cannot be stored. The text says who refuses it.
    Rejected(String),
    /// The API server cannot decrypt an object. The text names its key in etcd, if it is known.
    Unreadable(String),
    /// The database of etcd is full.
    Full,
    /// The objects cannot be read where they are stored.
    NotRead(Problem),
    /// The API server does not understand the request. The text says which one.
    Misunderstood(String),
}

/// The objects that may be left under an old key id.
#[async_trait]
pub trait Left: Debug + Send + Sync {
    /// Returns the objects of `resource` that come after the position `after`, or the first ones.
    ///
    /// # Errors
    /// See [`Refusal`].
    async fn page(
        &self,
        resource: &Resource,
        scope: &Scope,
        after: Option<&str>,
    ) -> Result<Page, Refusal>;
}

/// Stores objects again through an API server. Each call ends in bounded time.
#[async_trait]
pub trait Storage: Debug + Send + Sync {
    /// Returns the address of the API server.
    fn name(&self) -> String;

    /// Returns how the API server serves a resource.
    ///
    /// # Errors
    /// [`Refusal::Gone`] when it does not serve the resource, or not with list and patch. Otherwise
    /// see [`Refusal`].
    async fn resource(&self, name: &ResourceName) -> Result<Resource, Refusal>;

    /// Stores the object again if it is stored in an old form, and if it still has the version in
    /// `object`. Changes no content. Returns the version that the object has now: the same one if
    /// the API server had nothing to write.
    ///
    /// # Errors
    /// See [`Refusal`].
    async fn store(&self, resource: &Resource, object: &Listed) -> Result<String, Refusal>;

    /// Returns the present version of an object.
    ///
    /// # Errors
    /// See [`Refusal`].
    async fn version(&self, resource: &Resource, object: &Listed) -> Result<String, Refusal>;

    /// Returns whether the API server says that it is ready, its KMS plugins included.
    async fn is_ready(&self) -> bool;
}
