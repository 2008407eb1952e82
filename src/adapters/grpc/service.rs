//! KMS v2's wire types into the domain's words and back.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use tokio::sync::Semaphore;
use tonic::{Request, Response, Status};
use tracing::Instrument as _;

use super::{
    connection::in_hand,
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
        secret::Plaintext,
        time::Monotonic,
    },
    ports::{
        clock::Clock,
        kms::{KeyManagement, Sealed},
        telemetry::{Event, Method, Telemetry},
    },
};

/// The contract's version. kube-apiserver holds a provider to the first value it saw.
const VERSION: &str = "v2";

/// Calls of Encrypt and Decrypt in hand at once, over all connections.
const CALLS_MAX: usize = 1_024;

/// The gRPC face of the use cases.
#[derive(Debug)]
pub(super) struct KmsV2 {
    kms: Arc<dyn KeyManagement>,
    clock: Arc<dyn Clock>,
    telemetry: Arc<dyn Telemetry>,
    calls: Semaphore,
}

impl KmsV2 {
    pub(super) fn new(
        kms: Arc<dyn KeyManagement>,
        clock: Arc<dyn Clock>,
        telemetry: Arc<dyn Telemetry>,
    ) -> Self {
        Self { kms, clock, telemetry, calls: Semaphore::new(CALLS_MAX) }
    }

    async fn encrypted(
        &self,
        request: &mut EncryptRequest,
        deadline: Monotonic,
    ) -> Result<EncryptResponse, KmsError> {
        let plaintext = Plaintext::new(std::mem::take(&mut request.plaintext));
        require_uid(&request.uid)?;
        let _permit = self.permit()?;
        let answer = self.kms.encrypt(plaintext, deadline).await?;
        Ok(EncryptResponse {
            ciphertext: answer.ciphertext.into_bytes(),
            key_id: answer.key_id.as_str().to_owned(),
            annotations: answer.annotations.into_entries().into_iter().collect(),
        })
    }

    async fn decrypted(
        &self,
        request: &mut DecryptRequest,
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
        Ok(DecryptResponse { plaintext: Bytes::from_owner(Owned(plaintext)) })
    }

    fn permit(&self) -> Result<tokio::sync::SemaphorePermit<'_>, KmsError> {
        self.calls.try_acquire().map_err(|_full| {
            KmsError::new(
                Code::Overloaded,
                format!("{CALLS_MAX} calls are in hand already"),
                "the API server tries again; if this lasts, look at the keeper's latency",
            )
        })
    }

    fn answer<T>(
        &self,
        method: Method,
        uid: &str,
        started: Monotonic,
        result: Result<T, KmsError>,
    ) -> Result<Response<T>, Status> {
        let elapsed = self.clock.now().since(started);
        let error = result.as_ref().err();
        let status = error.map_or(tonic::Code::Ok, |error| status::grpc_code(error.code())).into();
        self.telemetry.record(Event::Answered { method, uid, elapsed, status, error });
        if let Some(error) = error {
            trace::failed(error);
        }
        result.map(Response::new).map_err(|error| status::of(&error))
    }

    /// When a call started, and when it must have ended.
    fn time<T>(&self, request: &Request<T>) -> (Monotonic, Monotonic) {
        let started = self.clock.now();
        let budget: Duration = deadline::budget(request.metadata().as_ref());
        (started, started.after(budget))
    }
}

#[tonic::async_trait]
impl KeyManagementService for KmsV2 {
    async fn status(
        &self,
        request: Request<StatusRequest>,
    ) -> Result<Response<StatusResponse>, Status> {
        let _in_hand = in_hand(&request);
        let started = self.clock.now();
        let answer = self.kms.status().map(|answer| StatusResponse {
            version: VERSION.to_owned(),
            healthz: answer.ailment.map_or_else(|| "ok".to_owned(), |error| error.to_string()),
            key_id: answer.key_id.as_str().to_owned(),
        });
        self.answer(Method::Status, "", started, answer)
    }

    async fn encrypt(
        &self,
        request: Request<EncryptRequest>,
    ) -> Result<Response<EncryptResponse>, Status> {
        let _in_hand = in_hand(&request);
        let (started, deadline) = self.time(&request);
        let span = trace::span(Method::Encrypt, request.metadata().as_ref());
        let mut request = request.into_inner();
        async {
            let answer = self.encrypted(&mut request, deadline).await;
            self.answer(Method::Encrypt, &request.uid, started, answer)
        }
        .instrument(span)
        .await
    }

    async fn decrypt(
        &self,
        request: Request<DecryptRequest>,
    ) -> Result<Response<DecryptResponse>, Status> {
        let _in_hand = in_hand(&request);
        let (started, deadline) = self.time(&request);
        let span = trace::span(Method::Decrypt, request.metadata().as_ref());
        let mut request = request.into_inner();
        async {
            let answer = self.decrypted(&mut request, deadline).await;
            self.answer(Method::Decrypt, &request.uid, started, answer)
        }
        .instrument(span)
        .await
    }
}

/// Lends a seed to the transport; it is zeroed when the answer is gone.
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
