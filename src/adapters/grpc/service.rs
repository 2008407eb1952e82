//! Translates between the wire types of KMS v2 and the types of the domain.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use tokio::sync::Semaphore;
use tonic::{Request, Response, Status};
use tracing::Instrument as _;

use super::{
    connection::{caller, in_hand},
    deadline, status, trace,
    wire::{
        DecryptRequest, DecryptResponse, EncryptRequest, EncryptResponse, StatusRequest,
        StatusResponse, key_management_service_server::KeyManagementService,
    },
};
use crate::{
    domain::{
        envelope::{Annotations, Ciphertext},
        error::{Code, KmsError},
        secret::{Plaintext, RequestId},
        time::Monotonic,
    },
    ports::{
        audit::{Audit, Caller, Entry},
        clock::Clock,
        kms::{KeyManagement, Sealed},
        telemetry::{Event, Method, Telemetry},
    },
};

/// The version of the KMS contract. kube-apiserver requires that it never changes.
const VERSION: &str = "v2";

/// Most calls of Encrypt and Decrypt at once, over all connections.
const CALLS_MAX: usize = 1_024;

/// Serves the use cases over gRPC.
#[derive(Debug)]
pub(super) struct KmsV2 {
    kms: Arc<dyn KeyManagement>,
    clock: Arc<dyn Clock>,
    telemetry: Arc<dyn Telemetry>,
    audit: Option<Arc<dyn Audit>>,
    calls: Semaphore,
}

impl KmsV2 {
    pub(super) fn new(
        kms: Arc<dyn KeyManagement>,
        clock: Arc<dyn Clock>,
        telemetry: Arc<dyn Telemetry>,
        audit: Option<Arc<dyn Audit>>,
    ) -> Self {
        Self { kms, clock, telemetry, audit, calls: Semaphore::new(CALLS_MAX) }
    }

    async fn encrypted(
        &self,
        request: &mut EncryptRequest,
        keys: &mut Keys,
        deadline: Monotonic,
    ) -> Result<EncryptResponse, KmsError> {
        let plaintext = Plaintext::new(std::mem::take(&mut request.plaintext));
        require_uid(&request.uid)?;
        let _permit = self.permit()?;
        let answer = self.kms.encrypt(plaintext, deadline).await?;
        *keys = Keys { key_id: answer.key_id.as_str().to_owned(), request_id: answer.request_id };
        Ok(EncryptResponse {
            ciphertext: answer.ciphertext.into_bytes(),
            key_id: keys.key_id.clone(),
            annotations: answer.annotations.into_entries().into_iter().collect(),
        })
    }

    async fn decrypted(
        &self,
        request: &mut DecryptRequest,
        keys: &mut Keys,
        deadline: Monotonic,
    ) -> Result<DecryptResponse, KmsError> {
        require_uid(&request.uid)?;
        let annotations = std::mem::take(&mut request.annotations).into_iter().collect();
        let sealed = Sealed {
            ciphertext: Ciphertext::new(std::mem::take(&mut request.ciphertext))?,
            key_id: std::mem::take(&mut request.key_id),
            annotations: Annotations::new(annotations)?,
        };
        let _permit = self.permit()?;
        let plaintext = self.kms.decrypt(sealed, deadline).await?;
        keys.request_id = plaintext.request_id().cloned();
        Ok(DecryptResponse { plaintext: Bytes::from_owner(Owned(plaintext)) })
    }

    fn permit(&self) -> Result<tokio::sync::SemaphorePermit<'_>, KmsError> {
        self.calls.try_acquire().map_err(|_full| {
            KmsError::new(
                Code::Overloaded,
                format!("{CALLS_MAX} calls are active, which is the most at once"),
                "the API server tries again; if this lasts, check the latency of the keeper",
            )
        })
    }

    /// Records the outcome of `call` and makes its answer.
    fn answer<T>(
        &self,
        call: &Call,
        uid: &str,
        keys: &Keys,
        result: Result<T, KmsError>,
    ) -> Result<Response<T>, Status> {
        let Call { method, caller, started, .. } = *call;
        let elapsed = self.clock.now().since(started);
        let Keys { key_id, request_id } = keys;
        let request_id = request_id.as_deref();
        let entry = |error| Entry { method, uid, key_id, caller, elapsed, error, request_id };
        let recorded = match &self.audit {
            Some(audit) if method != Method::Status => audit.record(&entry(result.as_ref().err())),
            _ => Ok(()),
        };
        let result = result.and_then(|answer| recorded.map(|()| answer));
        let error = result.as_ref().err();
        let status = error.map_or(tonic::Code::Ok, |error| status::grpc_code(error.code())).into();
        self.telemetry.record(Event::Answered { method, uid, caller, elapsed, status, error });
        if let Some(error) = error {
            trace::failed(error);
        }
        result.map(Response::new).map_err(|error| status::of(&error))
    }

    fn call<T>(&self, method: Method, request: &Request<T>) -> Call {
        let started = self.clock.now();
        let budget: Duration = deadline::budget(request.metadata().as_ref());
        Call { method, caller: caller(request), started, deadline: started.after(budget) }
    }
}

#[tonic::async_trait]
impl KeyManagementService for KmsV2 {
    async fn status(
        &self,
        request: Request<StatusRequest>,
    ) -> Result<Response<StatusResponse>, Status> {
        let _in_hand = in_hand(&request);
        let call = self.call(Method::Status, &request);
        let answer = self.kms.status().map(|answer| StatusResponse {
            version: VERSION.to_owned(),
            healthz: answer.ailment.map_or_else(|| "ok".to_owned(), |error| error.to_string()),
            key_id: answer.key_id.as_str().to_owned(),
        });
        self.answer(&call, "", &Keys::default(), answer)
    }

    async fn encrypt(
        &self,
        request: Request<EncryptRequest>,
    ) -> Result<Response<EncryptResponse>, Status> {
        let _in_hand = in_hand(&request);
        let call = self.call(Method::Encrypt, &request);
        let span = trace::span(Method::Encrypt, request.metadata().as_ref());
        let mut request = request.into_inner();
        async {
            let mut keys = Keys::default();
            let answer = self.encrypted(&mut request, &mut keys, call.deadline).await;
            self.answer(&call, &request.uid, &keys, answer)
        }
        .instrument(span)
        .await
    }

    async fn decrypt(
        &self,
        request: Request<DecryptRequest>,
    ) -> Result<Response<DecryptResponse>, Status> {
        let _in_hand = in_hand(&request);
        let call = self.call(Method::Decrypt, &request);
        let span = trace::span(Method::Decrypt, request.metadata().as_ref());
        let mut request = request.into_inner();
        async {
            let asked = self.audit.as_ref().map(|_| request.key_id.clone());
            let mut keys = Keys { key_id: asked.unwrap_or_default(), request_id: None };
            let answer = self.decrypted(&mut request, &mut keys, call.deadline).await;
            self.answer(&call, &request.uid, &keys, answer)
        }
        .instrument(span)
        .await
    }
}

/// What the audit log records of a call in addition to its outcome.
#[derive(Debug, Default)]
struct Keys {
    key_id: String,
    request_id: Option<RequestId>,
}

/// What is known of a call before its message is read.
#[derive(Clone, Copy, Debug)]
struct Call {
    method: Method,
    /// The calling process, if known.
    caller: Option<Caller>,
    started: Monotonic,
    /// When it must end.
    deadline: Monotonic,
}

/// Lends a seed to the transport. Dropping it wipes the seed.
struct Owned(Plaintext);

impl AsRef<[u8]> for Owned {
    fn as_ref(&self) -> &[u8] {
        self.0.expose()
    }
}

fn require_uid(uid: &str) -> Result<(), KmsError> {
    if uid.is_empty() {
        return Err(KmsError::new(
            Code::InvalidRequest,
            "the uid is empty",
            "send a new uid with each call, as kube-apiserver does",
        ));
    }
    Ok(())
}
