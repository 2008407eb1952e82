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
        audit::{Audit, Caller, Entry, Outcome},
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
        request: EncryptRequest,
        pending: &mut Pending<'_>,
    ) -> Result<EncryptResponse, KmsError> {
        let plaintext = Plaintext::new(request.plaintext);
        require_uid(&pending.call.uid)?;
        let _permit = self.permit()?;
        let answer = self.kms.encrypt(plaintext, pending.call.deadline).await?;
        let Keys { key_id, request_id } = &mut pending.keys;
        (*key_id, *request_id) = (answer.key_id.as_str().to_owned(), answer.request_id);
        Ok(EncryptResponse {
            ciphertext: answer.ciphertext.into_bytes(),
            key_id: key_id.clone(),
            annotations: answer.annotations.into_entries().into_iter().collect(),
        })
    }

    async fn decrypted(
        &self,
        request: DecryptRequest,
        pending: &mut Pending<'_>,
    ) -> Result<DecryptResponse, KmsError> {
        require_uid(&pending.call.uid)?;
        let sealed = Sealed {
            ciphertext: Ciphertext::new(request.ciphertext)?,
            key_id: request.key_id,
            annotations: Annotations::new(request.annotations.into_iter().collect())?,
        };
        let _permit = self.permit()?;
        let plaintext = self.kms.decrypt(sealed, pending.call.deadline).await?;
        pending.keys.request_id = plaintext.request_id().cloned();
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
        keys: &Keys,
        result: Result<T, KmsError>,
    ) -> Result<Response<T>, Status> {
        let outcome = result.as_ref().map_or_else(Outcome::Failed, |_answer| Outcome::Done);
        let recorded = self.audited(call, keys, outcome);
        let result = result.and_then(|answer| recorded.map(|()| answer));
        let error = result.as_ref().err();
        let status = error.map_or(tonic::Code::Ok, |error| status::grpc_code(error.code()));
        self.answered(call, status, error);
        if let Some(error) = error {
            trace::failed(error);
        }
        result.map(Response::new).map_err(|error| status::of(&error))
    }

    fn audited(&self, call: &Call, keys: &Keys, outcome: Outcome<'_>) -> Result<(), KmsError> {
        let Call { method, ref uid, caller, started, .. } = *call;
        let (Some(audit), true) = (&self.audit, method != Method::Status) else { return Ok(()) };
        let elapsed = self.clock.now().since(started);
        let Keys { key_id, request_id } = keys;
        let request_id = request_id.as_deref();
        audit.record(&Entry { method, uid, key_id, caller, elapsed, outcome, request_id })
    }

    fn answered(&self, call: &Call, status: tonic::Code, error: Option<&KmsError>) {
        let Call { method, ref uid, caller, started, .. } = *call;
        let (elapsed, status) = (self.clock.now().since(started), status.into());
        self.telemetry.record(Event::Answered { method, uid, caller, elapsed, status, error });
    }

    fn call<T>(&self, method: Method, request: &Request<T>) -> Call {
        let started = self.clock.now();
        let budget: Duration = deadline::budget(request.metadata().as_ref());
        let deadline = started.after(budget);
        Call { method, uid: String::new(), caller: caller(request), started, deadline }
    }

    /// Begins a wrap or an unwrap.
    fn begin(&self, call: Call, key_id: String) -> Pending<'_> {
        let keys = Keys { key_id, request_id: None };
        Pending { kms: self, call, keys, is_answered: false }
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
        self.answer(&call, &Keys::default(), answer)
    }

    async fn encrypt(
        &self,
        request: Request<EncryptRequest>,
    ) -> Result<Response<EncryptResponse>, Status> {
        let _in_hand = in_hand(&request);
        let mut call = self.call(Method::Encrypt, &request);
        let span = trace::span(Method::Encrypt, request.metadata().as_ref());
        let mut request = request.into_inner();
        call.uid = std::mem::take(&mut request.uid);
        async {
            let mut pending = self.begin(call, String::new());
            let answer = self.encrypted(request, &mut pending).await;
            pending.answer(answer)
        }
        .instrument(span)
        .await
    }

    async fn decrypt(
        &self,
        request: Request<DecryptRequest>,
    ) -> Result<Response<DecryptResponse>, Status> {
        let _in_hand = in_hand(&request);
        let mut call = self.call(Method::Decrypt, &request);
        let span = trace::span(Method::Decrypt, request.metadata().as_ref());
        let mut request = request.into_inner();
        call.uid = std::mem::take(&mut request.uid);
        async {
            let asked = self.audit.as_ref().map(|_| request.key_id.clone());
            let mut pending = self.begin(call, asked.unwrap_or_default());
            let answer = self.decrypted(request, &mut pending).await;
            pending.answer(answer)
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

/// A call.
#[derive(Debug)]
struct Call {
    method: Method,
    /// The API server's identifier of a wrap or an unwrap.
    uid: String,
    /// The calling process, if known.
    caller: Option<Caller>,
    started: Monotonic,
    /// When it must end.
    deadline: Monotonic,
}

/// A wrap or an unwrap without an answer. A drop before the answer records that the call is abandoned:
/// the caller ended it, its time was up, or its connection ended.
struct Pending<'a> {
    kms: &'a KmsV2,
    call: Call,
    keys: Keys,
    is_answered: bool,
}

impl Pending<'_> {
    fn answer<T>(mut self, result: Result<T, KmsError>) -> Result<Response<T>, Status> {
        self.is_answered = true;
        self.kms.answer(&self.call, &self.keys, result)
    }
}

impl Drop for Pending<'_> {
    fn drop(&mut self) {
        if !self.is_answered {
            let _refused = self.kms.audited(&self.call, &self.keys, Outcome::Abandoned);
            self.kms.answered(&self.call, tonic::Code::Cancelled, None);
        }
    }
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

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use futures_util::FutureExt as _;

    use super::*;
    use crate::ports::{
        clock::MockClock,
        kms::{Encrypted, StatusAnswer},
        telemetry::MockTelemetry,
    };

    /// A keeper that never answers.
    #[derive(Debug)]
    struct Silent;

    #[tonic::async_trait]
    impl KeyManagement for Silent {
        fn status(&self) -> Result<StatusAnswer, KmsError> {
            unreachable!("nobody asks")
        }

        async fn encrypt(&self, _: Plaintext, _: Monotonic) -> Result<Encrypted, KmsError> {
            std::future::pending().await
        }

        async fn decrypt(&self, _: Sealed, _: Monotonic) -> Result<Plaintext, KmsError> {
            std::future::pending().await
        }
    }

    /// Keeps how each call ended, and its uid.
    #[derive(Debug, Default)]
    struct Kept(Mutex<Vec<(String, String)>>);

    impl Audit for Kept {
        fn record(&self, entry: &Entry<'_>) -> Result<(), KmsError> {
            let outcome = format!("{:?}", entry.outcome);
            self.0.lock().unwrap().push((entry.uid.to_owned(), outcome));
            Ok(())
        }
    }

    /// The keeper may have wrapped the seed by then.
    #[tokio::test]
    async fn a_call_that_its_caller_ends_is_recorded() {
        let mut clock = MockClock::new();
        clock.expect_now().return_const(Monotonic::default());
        let mut telemetry = MockTelemetry::new();
        let cancelled = i32::from(tonic::Code::Cancelled);
        let is_cancelled = move |event: &Event<'_>| matches!(event, Event::Answered { status, .. } if *status == cancelled);
        telemetry.expect_record().withf(is_cancelled).times(1).return_const(());
        let kept = Arc::new(Kept::default());
        let audit: Arc<dyn Audit> = Arc::<Kept>::clone(&kept);
        let service =
            KmsV2::new(Arc::new(Silent), Arc::new(clock), Arc::new(telemetry), Some(audit));
        let request = EncryptRequest { plaintext: vec![0; 32], uid: "u".to_owned() };
        let mut call = service.encrypt(Request::new(request));
        assert!(call.as_mut().now_or_never().is_none());
        drop(call);
        assert_eq!(*kept.0.lock().unwrap(), [("u".to_owned(), "Abandoned".to_owned())]);
    }
}
