//! Unwraps seeds by a running KMS v2 plugin: the call `Decrypt` on its socket.

use std::{future::Future, time::Duration};

use async_trait::async_trait;
use tonic::{Code as Grpc, Request, Response, Status};
use vault_kube_kms::{
    adapters::grpc::{
        address::SocketAddress,
        client::{self, KmsClient},
        wire::{DecryptRequest, StatusRequest},
    },
    domain::{
        error::{Code, KmsError},
        secret::Plaintext,
    },
};

use crate::{
    domain::{envelope::Envelope, keeper_facts::KeeperFacts, problem::Problem},
    ports::seeds::Seeds,
};

/// The most time for a call. kube-apiserver's default is 3 s.
const CALL_TIMEOUT: Duration = Duration::from_secs(3);

/// The name of these calls in the log of the plugin.
const UID: &str = "vault-kube-kmsctl-drill";

/// A plugin on a socket.
#[derive(Debug)]
pub struct PluginSeeds {
    address: SocketAddress,
    /// The address, as it was given.
    name: String,
}

impl PluginSeeds {
    /// Returns the plugin at `address`, which is `unix:///path` or `unix:///@name`.
    ///
    /// # Errors
    /// When the address is not valid.
    pub fn at(address: &str) -> Result<Self, Problem> {
        let parsed = SocketAddress::parse(address).map_err(|wrong| {
            Problem::new("settings-invalid", format!("--plugin: {wrong}"), "give unix:///path")
        })?;
        Ok(Self { address: parsed, name: address.to_owned() })
    }

    /// Asks the plugin for its status.
    ///
    /// # Errors
    /// When the plugin gives no answer.
    pub async fn facts(&self) -> Result<KeeperFacts, KmsError> {
        let mut client = self.connect().await?;
        let status = in_time(client.status(request(StatusRequest {}))).await?;
        let key_ids = vec![status.map_err(|status| refused(&status))?.into_inner().key_id];
        Ok(KeeperFacts { place: self.name.clone(), key_ids, ..KeeperFacts::default() })
    }

    async fn connect(&self) -> Result<KmsClient, KmsError> {
        let connected = tokio::time::timeout(CALL_TIMEOUT, client::connect(&self.address)).await;
        connected.map_err(|_elapsed| late())?.map_err(|error| {
            KmsError::new(
                Code::KeeperUnreachable,
                format!("cannot connect to the plugin at {}: {error}", self.name),
                "start the plugin, or give the address of its socket",
            )
        })
    }

    /// Returns whether the plugin says that it is well. A plugin that answers each error with the
    /// code `Unknown` then means the seed, and not an outage.
    async fn is_well(&self, client: &mut KmsClient) -> bool {
        let status = in_time(client.status(request(StatusRequest {}))).await;
        matches!(status, Ok(Ok(answer)) if answer.get_ref().healthz == "ok")
    }
}

#[async_trait]
impl Seeds for PluginSeeds {
    async fn unwrap(&self, envelope: &Envelope<'_>) -> Result<Plaintext, KmsError> {
        let mut client = self.connect().await?;
        let call = DecryptRequest {
            ciphertext: envelope.wrapped_seed.clone(),
            uid: UID.to_owned(),
            key_id: envelope.key_id.clone(),
            annotations: envelope.annotations.clone().into_iter().collect(),
        };
        match in_time(client.decrypt(request(call))).await? {
            Ok(answer) => Ok(Plaintext::new(answer.into_inner().plaintext.into())),
            Err(status) => {
                let error = refused(&status);
                let is_unclear = matches!(status.code(), Grpc::Unknown | Grpc::Internal);
                if is_unclear
                    && error.code() == Code::KeeperFailed
                    && self.is_well(&mut client).await
                {
                    return Err(about_the_seed(&status));
                }
                Err(error)
            }
        }
    }
}

fn request<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(CALL_TIMEOUT);
    request
}

async fn in_time<T: Send>(
    call: impl Future<Output = Result<Response<T>, Status>> + Send,
) -> Result<Result<Response<T>, Status>, KmsError> {
    tokio::time::timeout(CALL_TIMEOUT, call).await.map_err(|_elapsed| late())
}

fn late() -> KmsError {
    KmsError::new(
        Code::KeeperTimeout,
        "the plugin did not answer within 3 s",
        "read the log of the plugin",
    )
}

/// Returns the error of a call that the plugin refused. The text of another plugin is not repeated.
fn refused(status: &Status) -> KmsError {
    if let Some(error) = ours(status) {
        return error;
    }
    let (code, cause) = match status.code() {
        Grpc::Unavailable
        | Grpc::ResourceExhausted
        | Grpc::Aborted
        | Grpc::Cancelled
        | Grpc::Unknown
        | Grpc::Internal => (Code::KeeperFailed, "the plugin failed"),
        Grpc::DeadlineExceeded => (Code::KeeperTimeout, "the plugin did not answer in time"),
        Grpc::PermissionDenied | Grpc::Unauthenticated => {
            (Code::PermissionDenied, "the plugin has no permission")
        }
        Grpc::Unimplemented => (Code::KeeperAnswer, "the plugin does not serve KMS v2"),
        _ => return about_the_seed(status),
    };
    let cause = format!("{cause} (gRPC code {})", i32::from(status.code()));
    KmsError::new(code, cause, "read the log of the plugin")
}

fn about_the_seed(status: &Status) -> KmsError {
    let code =
        if status.code() == Grpc::NotFound { Code::KeyIdUnknown } else { Code::CiphertextRejected };
    KmsError::new(
        code,
        format!("the plugin refuses the seed (gRPC code {})", i32::from(status.code())),
        "read the log of the plugin",
    )
}

/// Reads the error of vault-kube-kms: `code: cause; remedy`.
fn ours(status: &Status) -> Option<KmsError> {
    let (code, text) = status.message().split_once(": ")?;
    let code = Code::ALL.into_iter().find(|known| known.as_str() == code)?;
    let (cause, remedy) = text.rsplit_once("; ").unwrap_or((text, "read the log of the plugin"));
    Some(KmsError::new(code, cause.to_owned(), remedy.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_outage_is_not_about_the_seed() {
        for (grpc, text, code) in [
            (Grpc::Unavailable, "keeper-sealed: it is sealed; unseal it", Code::KeeperSealed),
            (Grpc::FailedPrecondition, "version-retired: v1; restore", Code::VersionRetired),
            (Grpc::NotFound, "key-id-unknown: other; set it", Code::KeyIdUnknown),
            (Grpc::Unavailable, "dial tcp", Code::KeeperFailed),
            (Grpc::Unknown, "rpc error", Code::KeeperFailed),
            (Grpc::InvalidArgument, "bad", Code::CiphertextRejected),
            (Grpc::Unauthenticated, "no", Code::PermissionDenied),
        ] {
            let error = refused(&Status::new(grpc, text));
            assert_eq!(error.code(), code, "{text}");
        }
    }
}
