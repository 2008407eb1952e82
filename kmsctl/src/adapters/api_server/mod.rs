//! A kube-apiserver: here the ports of `rewrite`, and in `metrics` what it tells of its KMS providers.
//!
//! Values never reach this program: lists and patches ask for metadata alone, and a patch names a
//! version only.

mod answer;
mod kubeconfig;
pub mod metrics;
mod paths;

use std::{fmt, path::Path, time::Duration};

use async_trait::async_trait;
use http::{
    Method, Request, StatusCode,
    header::{ACCEPT, CONTENT_TYPE},
};
use http_body_util::{BodyExt as _, Limited};
use kube::{Client, Config, client::Body};
use serde::{Deserialize, de::DeserializeOwned};

use self::kubeconfig::unusable;
use crate::{
    domain::{problem::Problem, resource::ResourceName},
    ports::rewriting::{Left, Listed, Page, Refusal, Resource, Scope, Storage},
};

/// The objects of one page. The metadata of an object has at most some 512 KiB.
const PAGE: usize = 100;

/// The longest answer, in bytes.
const MAX_ANSWER: usize = 64 << 20;

/// The longest wait for an answer. The API server itself ends a request after 60 s.
const TIMEOUT: Duration = Duration::from_secs(65);

/// The longest wait for a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// The name that the API server's log and audit log give to the writes.
const FIELD_MANAGER: &str = "vault-kube-kmsctl";

const JSON: &str = "application/json";
const LIST: &str = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1";
const OBJECT: &str = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1";

/// A kube-apiserver.
#[derive(Clone)]
pub struct ApiServer {
    client: Client,
    name: String,
    dry_run: bool,
}

impl fmt::Debug for ApiServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ApiServer").field("name", &self.name).finish_non_exhaustive()
    }
}

impl ApiServer {
    /// Returns the API server that a kubeconfig names. Without a file it is the one that `KUBECONFIG`,
    /// the usual file or the service account of this Pod names, in this order. With `dry_run` the API
    /// server checks each write and makes none.
    ///
    /// # Errors
    /// When the kubeconfig cannot be read or used. Nothing is sent yet.
    pub async fn connect(
        kubeconfig: Option<&Path>,
        context: Option<String>,
        dry_run: bool,
    ) -> Result<Self, Problem> {
        let config = match (kubeconfig, &context) {
            (None, None) => Config::infer().await.map_err(|error| unusable(None, &error))?,
            _ => kubeconfig::read(kubeconfig, context).await?,
        };
        Self::with(config, dry_run)
    }

    fn with(mut config: Config, dry_run: bool) -> Result<Self, Problem> {
        config.connect_timeout = Some(CONNECT_TIMEOUT);
        config.default_retry = false;
        let name = config.cluster_url.to_string().trim_end_matches('/').to_owned();
        let client = Client::try_from(config).map_err(|error| unusable(None, &error))?;
        Ok(Self { client, name, dry_run })
    }

    async fn ask<T: DeserializeOwned>(
        &self,
        request: http::request::Builder,
        body: Vec<u8>,
        what: &str,
    ) -> Result<T, Refusal> {
        let (code, headers, body) = self.send(request, body, what).await?;
        if !code.is_success() {
            return Err(answer::refusal(code, &headers, &body, what));
        }
        serde_json::from_slice(&body).map_err(|_invalid| Refusal::Misunderstood(what.to_owned()))
    }

    /// Asks for a document of the discovery. Its group does not exist if the API server knows no such
    /// path.
    async fn discover<T: DeserializeOwned>(&self, path: &str, what: &str) -> Result<T, Refusal> {
        let (code, headers, body) = self.send(get(path, JSON), Vec::new(), what).await?;
        match code {
            StatusCode::NOT_FOUND => Err(Refusal::Gone),
            code if code.is_success() => serde_json::from_slice(&body)
                .map_err(|_invalid| Refusal::Misunderstood(what.to_owned())),
            code => Err(answer::refusal(code, &headers, &body, what)),
        }
    }

    async fn send(
        &self,
        request: http::request::Builder,
        body: Vec<u8>,
        what: &str,
    ) -> Result<(StatusCode, http::HeaderMap, bytes::Bytes), Refusal> {
        let request = request
            .body(Body::from(body))
            .map_err(|_invalid| Refusal::Misunderstood(what.to_owned()))?;
        let exchange = async {
            let answer = self.client.send(request).await.map_err(|error| unsent(&error, what))?;
            let (parts, body) = answer.into_parts();
            let body = Limited::new(body, MAX_ANSWER).collect().await.map_err(|_cut| {
                Refusal::Unavailable(format!("the answer to {what} ended early, or is too long"))
            })?;
            Ok((parts.status, parts.headers, body.to_bytes()))
        };
        match tokio::time::timeout(TIMEOUT, exchange).await {
            Ok(done) => done,
            Err(_elapsed) => Err(Refusal::Unavailable(format!(
                "no answer to {what} within {} s",
                TIMEOUT.as_secs()
            ))),
        }
    }
}

fn get(path: &str, accept: &str) -> http::request::Builder {
    Request::get(path).header(ACCEPT, accept)
}

/// Returns why a request was not answered.
fn unsent(error: &kube::Error, what: &str) -> Refusal {
    if matches!(error, kube::Error::Auth(_)) {
        return Refusal::Unauthenticated;
    }
    let mut cause: &dyn std::error::Error = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    Refusal::Unavailable(format!("cannot {what}: {cause}"))
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Group {
    preferred_version: GroupVersion,
}

#[derive(Deserialize)]
struct GroupVersion {
    version: String,
}

#[derive(Deserialize)]
struct Resources {
    resources: Vec<Served>,
}

#[derive(Deserialize)]
struct Served {
    name: String,
    namespaced: bool,
    verbs: Vec<String>,
}

#[derive(Deserialize)]
struct List {
    #[serde(default)]
    metadata: ListMeta,
    /// `null` for an empty list.
    items: Option<Vec<Object>>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct ListMeta {
    #[serde(rename = "continue")]
    next: String,
    remaining_item_count: Option<u64>,
}

/// The metadata of an object. Its annotations, which may hold values, are not kept.
#[derive(Deserialize)]
struct Object {
    metadata: Metadata,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Metadata {
    name: String,
    namespace: Option<String>,
    resource_version: String,
}

#[async_trait]
impl Left for ApiServer {
    /// Returns every object: the API server does not say in which form it stores an object.
    async fn page(
        &self,
        resource: &Resource,
        scope: &Scope,
        after: Option<&str>,
    ) -> Result<Page, Refusal> {
        let path = paths::page(resource, scope, after, PAGE);
        let what = format!("list {}", resource.name);
        let list: List = self.ask(get(&path, LIST), Vec::new(), &what).await?;
        let objects = list.items.into_iter().flatten().map(|item| Listed {
            namespace: item.metadata.namespace,
            name: item.metadata.name,
            version: item.metadata.resource_version,
        });
        Ok(Page {
            objects: objects.collect(),
            next: Some(list.metadata.next).filter(|next| !next.is_empty()),
            remaining: list.metadata.remaining_item_count,
        })
    }
}

#[async_trait]
impl Storage for ApiServer {
    fn name(&self) -> String {
        self.name.clone()
    }

    async fn resource(&self, name: &ResourceName) -> Result<Resource, Refusal> {
        let what = format!("discover {name}");
        let version = if name.group.is_empty() {
            "v1".to_owned()
        } else {
            let path = paths::group(&name.group, None);
            let group: Group = self.discover(&path, &what).await?;
            group.preferred_version.version
        };
        let path = paths::group(&name.group, Some(&version));
        let served: Resources = self.discover(&path, &what).await?;
        let can = |resource: &Served, verb: &str| resource.verbs.iter().any(|has| has == verb);
        let found = served.resources.into_iter().find(|resource| resource.name == name.plural);
        match found {
            Some(found) if can(&found, "list") && can(&found, "patch") => {
                Ok(Resource { name: name.clone(), version, is_namespaced: found.namespaced })
            }
            _ => Err(Refusal::Gone),
        }
    }

    async fn store(&self, resource: &Resource, object: &Listed) -> Result<String, Refusal> {
        let path = paths::object(resource, object);
        let dry_run = if self.dry_run { "&dryRun=All" } else { "" };
        let request = Request::builder()
            .method(Method::PATCH)
            .uri(format!("{path}?fieldManager={FIELD_MANAGER}{dry_run}"))
            .header(ACCEPT, OBJECT)
            .header(CONTENT_TYPE, "application/merge-patch+json");
        // The version makes the API server refuse the patch if somebody else has written the object.
        let body = serde_json::json!({"metadata": {"resourceVersion": object.version}});
        let what = format!("patch {}", resource.name);
        let stored: Object = self.ask(request, body.to_string().into_bytes(), &what).await?;
        Ok(stored.metadata.resource_version)
    }

    async fn version(&self, resource: &Resource, object: &Listed) -> Result<String, Refusal> {
        let path = paths::object(resource, object);
        let what = format!("get {}", resource.name);
        let read: Object = self.ask(get(&path, OBJECT), Vec::new(), &what).await?;
        Ok(read.metadata.resource_version)
    }

    async fn is_ready(&self) -> bool {
        let ready = self.send(get("/readyz", "*/*"), Vec::new(), "get /readyz").await;
        ready.is_ok_and(|(code, ..)| code.is_success())
    }
}
