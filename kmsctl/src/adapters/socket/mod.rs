//! A plugin behind its socket. The calls are those of an API server: authority `localhost`, and a
//! deadline on each.

mod frames;

use std::{
    error::Error as _,
    io,
    os::unix::fs::PermissionsExt as _,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use prost::Message;
use tokio::{
    fs,
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::UnixStream,
    time::{self, Instant},
};
use tonic::{Request, Response, Status, client::Grpc};
use tonic_prost::ProstCodec;
use vault_kube_kms::adapters::grpc::{
    address::SocketAddress,
    client::{self, Channel},
    wire::{DecryptRequest, EncryptRequest, EncryptResponse, StatusRequest, StatusResponse},
};

use crate::{
    domain::conformance::{Call, Foreign, Refusal, StatusAnswer, Wrapped},
    ports::plugin::{Plugin, Socket},
};

/// How long a plugin may keep a connection on which it got bytes that are not HTTP/2.
const FOREIGN_MAX: Duration = Duration::from_secs(5);

/// The most bytes that are read of an answer to such bytes.
const FOREIGN_ANSWER_MAX: usize = 64 << 10;

/// The socket of a plugin.
#[derive(Clone, Debug)]
pub struct PluginSocket {
    address: SocketAddress,
    timeout: Duration,
}

impl PluginSocket {
    /// Takes the address, and the time that each call may take.
    #[must_use]
    pub fn new(address: SocketAddress, timeout: Duration) -> Self {
        Self { address, timeout }
    }

    async fn channel(&self) -> io::Result<Channel> {
        within(self.timeout, client::channel(&self.address)).await
    }

    async fn stream(&self) -> io::Result<UnixStream> {
        let name = match &self.address {
            SocketAddress::File(path) => path.clone().into_os_string(),
            SocketAddress::Abstract(name) => format!("\0{name}").into(),
        };
        within(self.timeout, UnixStream::connect(name)).await
    }
}

/// Runs an operation with a limit of time.
async fn within<T>(
    limit: Duration,
    operation: impl Future<Output = io::Result<T>>,
) -> io::Result<T> {
    let late = || io::Error::new(io::ErrorKind::TimedOut, format!("no answer in {limit:?}"));
    time::timeout(limit, operation).await.unwrap_or_else(|_late| Err(late()))
}

#[async_trait]
impl Socket for PluginSocket {
    async fn connect(&self) -> Result<Box<dyn Plugin>, String> {
        let channel = self.channel().await.map_err(|error| error.to_string())?;
        Ok(Box::new(Connection { socket: self.clone(), channel: Mutex::new(Some(channel)) }))
    }

    async fn mode(&self) -> Option<u32> {
        let SocketAddress::File(path) = &self.address else { return None };
        let file = fs::metadata(path).await.ok()?;
        Some(file.permissions().mode() & 0o777)
    }

    async fn old_authority(&self) -> Result<(), String> {
        let authority = frames::old_authority(&self.address);
        let status = async {
            let mut stream = self.stream().await?;
            frames::call_status(&mut stream, &authority).await
        };
        match within(self.timeout, status).await {
            Ok(answer) => answer,
            Err(error) => Err(error.to_string()),
        }
    }

    async fn foreign(&self, bytes: &'static [u8]) -> Result<Foreign, String> {
        let mut stream = self.stream().await.map_err(|error| error.to_string())?;
        let closed = async {
            // A plugin may close the connection before it has read everything.
            if stream.write_all(bytes).await.is_err() {
                return;
            }
            let (mut buffer, mut left) = ([0; 4096], FOREIGN_ANSWER_MAX);
            while let Ok(read @ 1..) = stream.read(&mut buffer).await
                && left > 0
            {
                left = left.saturating_sub(read);
            }
        };
        let ended = time::timeout(FOREIGN_MAX, closed).await;
        Ok(if ended.is_ok() { Foreign::Closed } else { Foreign::Open })
    }
}

/// A connection. It is made again after a failure, as the API server does.
#[derive(Debug)]
struct Connection {
    socket: PluginSocket,
    channel: Mutex<Option<Channel>>,
}

/// A message without known fields. As a request it has one that no plugin knows.
#[derive(Clone, PartialEq, Message)]
struct Strange {
    #[prost(bytes = "vec", tag = "2047")]
    extra: Vec<u8>,
}

impl Connection {
    async fn channel(&self) -> Result<Channel, Status> {
        let kept = self.channel.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(channel) = kept {
            return Ok(channel);
        }
        let made = self.socket.channel().await.map_err(|error| Status::from_error(error.into()))?;
        *self.channel.lock().unwrap_or_else(PoisonError::into_inner) = Some(made.clone());
        Ok(made)
    }

    /// Makes a call, and measures it. `deadline` goes into the request and bounds the wait.
    async fn measured<M, A, F>(
        &self,
        message: M,
        deadline: Duration,
        make: impl FnOnce(Channel, Request<M>) -> F,
    ) -> Call<A>
    where
        F: Future<Output = Result<Response<A>, Status>>,
    {
        let began = Instant::now();
        let called = async {
            let mut request = Request::new(message);
            request.set_timeout(deadline);
            make(self.channel().await?, request).await
        };
        // The plugin has the deadline too. The time beyond it is for its answer.
        let answer = match time::timeout(deadline.max(self.socket.timeout), called).await {
            Ok(answer) => answer.map(Response::into_inner),
            Err(_late) => Err(Status::deadline_exceeded("no answer within the deadline")),
        };
        let answer = answer.map_err(|status| {
            let failed = status.source().is_some();
            if failed {
                self.channel.lock().unwrap_or_else(PoisonError::into_inner).take();
            }
            refusal(&status, failed)
        });
        Call { took: began.elapsed(), answer }
    }
}

fn refusal(status: &Status, failed: bool) -> Refusal {
    let code = if failed { Refusal::NO_ANSWER.into() } else { format!("{:?}", status.code()) };
    let mut text = status.message().to_owned();
    let mut source = status.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    Refusal { code, text }
}

#[async_trait]
impl Plugin for Connection {
    async fn status(&self) -> Call<StatusAnswer> {
        let make = |channel, request| async move { client::client(channel).status(request).await };
        let call = self.measured(StatusRequest {}, self.socket.timeout, make).await;
        let read = |answer: StatusResponse| StatusAnswer {
            version: answer.version,
            healthz: answer.healthz,
            key_id: answer.key_id,
        };
        Call { took: call.took, answer: call.answer.map(read) }
    }

    async fn encrypt(&self, plaintext: &[u8], uid: &str) -> Call<Wrapped> {
        let message = EncryptRequest { plaintext: plaintext.into(), uid: uid.into() };
        let make = |channel, request| async move { client::client(channel).encrypt(request).await };
        let call = self.measured(message, self.socket.timeout, make).await;
        let read = |answer: EncryptResponse| Wrapped {
            ciphertext: answer.ciphertext,
            key_id: answer.key_id,
            annotations: answer.annotations.into_iter().collect(),
        };
        Call { took: call.took, answer: call.answer.map(read) }
    }

    async fn decrypt(&self, wrapped: &Wrapped, uid: &str) -> Call<Vec<u8>> {
        let message = DecryptRequest {
            ciphertext: wrapped.ciphertext.clone(),
            uid: uid.into(),
            key_id: wrapped.key_id.clone(),
            annotations: wrapped.annotations.clone().into_iter().collect(),
        };
        let make = |channel, request| async move { client::client(channel).decrypt(request).await };
        let call = self.measured(message, self.socket.timeout, make).await;
        Call { took: call.took, answer: call.answer.map(|answer| answer.plaintext.into()) }
    }

    async fn call(&self, path: &'static str, extra: Vec<u8>, deadline: Duration) -> Call<()> {
        let call = self
            .measured(Strange { extra }, deadline, |channel, request| async move {
                let mut grpc = Grpc::with_origin(channel, client::origin());
                grpc.ready().await.map_err(|error| Status::from_error(error.into()))?;
                let path = http::uri::PathAndQuery::from_static(path);
                grpc.unary(request, path, ProstCodec::<Strange, Strange>::default()).await
            })
            .await;
        Call { took: call.took, answer: call.answer.map(|_: Strange| ()) }
    }
}
