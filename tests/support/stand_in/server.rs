//! The server of the stand-in: TLS, HTTP/1.1, and the faults.

use std::{convert::Infallible, future::pending, io, sync::Arc, sync::atomic::Ordering};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full, combinators::BoxBody};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use rcgen::{CertifiedKey, generate_simple_self_signed};
use rustls::{
    ServerConfig,
    crypto::{CryptoProvider, aws_lc_rs},
};
use rustls_pki_types::PrivateKeyDer;
use serde_json::Value;
use tokio::{
    net::{TcpListener, TcpStream},
    task::{JoinHandle, JoinSet},
};
use tokio_rustls::TlsAcceptor;

use super::{Fault, Shared};

type Answer = Response<BoxBody<Bytes, io::Error>>;

/// An authority, and its certificate for all nodes.
#[derive(Clone)]
pub struct Authority {
    pub pem: String,
    config: Arc<ServerConfig>,
}

impl Authority {
    pub fn new() -> Self {
        Self::with(aws_lc_rs::default_provider())
    }

    /// An authority whose nodes refuse a hybrid key exchange.
    pub fn classical() -> Self {
        let kx_groups = vec![aws_lc_rs::kx_group::SECP256R1, aws_lc_rs::kx_group::SECP384R1];
        Self::with(CryptoProvider { kx_groups, ..aws_lc_rs::default_provider() })
    }

    fn with(provider: CryptoProvider) -> Self {
        let names = ["127.0.0.1".to_owned(), "localhost".to_owned()];
        let CertifiedKey { cert, signing_key } = generate_simple_self_signed(names).unwrap();
        let key = PrivateKeyDer::try_from(signing_key.serialize_der()).unwrap();
        let config = ServerConfig::builder_with_provider(Arc::new(provider))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![cert.der().clone()], key)
            .unwrap();
        Self { pem: cert.pem(), config: Arc::new(config) }
    }
}

/// Serves `shared` on a free port. Returns its address and the serving task.
pub async fn start(shared: Arc<Shared>) -> (String, JoinHandle<()>) {
    let tls = TlsAcceptor::from(shared.authority.config.clone());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("https://127.0.0.1:{}", listener.local_addr().unwrap().port());
    let serving = tokio::spawn(async move {
        let mut connections = JoinSet::new();
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            connections.spawn(connection(stream, tls.clone(), shared.clone()));
            while connections.try_join_next().is_some() {}
        }
    });
    (address, serving)
}

async fn connection(stream: TcpStream, tls: TlsAcceptor, shared: Arc<Shared>) {
    stream.set_nodelay(true).unwrap();
    let Ok(stream) = tls.accept(stream).await else { return };
    let service = service_fn(|request| respond(request, shared.clone()));
    // An error of the service ends the connection without an answer.
    drop(http1::Builder::new().serve_connection(TokioIo::new(stream), service).await);
}

async fn respond(request: Request<Incoming>, shared: Arc<Shared>) -> io::Result<Answer> {
    let path = request.uri().path().trim_start_matches("/v1/").to_owned();
    let token = request.headers().get("x-vault-token");
    let token = token.and_then(|token| token.to_str().ok()).map(str::to_owned);
    let body = request.into_body().collect().await.map_err(io::Error::other)?.to_bytes();
    let fault = shared.fault_for(&path);
    match &fault {
        Some(Fault::Delay(wait)) => tokio::time::sleep(*wait).await,
        Some(Fault::Hang) => pending::<()>().await,
        Some(Fault::Reset) => return Err(io::Error::other("reset")),
        Some(Fault::Held(status, text)) => {
            shared.released.notified().await;
            shared.answered.notify_one();
            return Ok(page(*status, text));
        }
        Some(Fault::Says(status, text)) => return Ok(page(*status, text)),
        Some(Fault::Redirect(to)) => {
            let mut answer = page(307, "");
            let location = format!("{to}/v1/{path}").parse().unwrap();
            answer.headers_mut().insert("location", location);
            return Ok(answer);
        }
        Some(Fault::HalfBody | Fault::ResetAfter) | None => (),
    }
    let body: Value = serde_json::from_slice(&body).unwrap_or(Value::Null);
    let (status, reply) = {
        let mut engine = shared.engine.lock().unwrap();
        engine.known = shared.knows.load(Ordering::Relaxed);
        engine.answer(&path, token.as_deref(), &body)
    };
    let leads = path == "sys/health" && shared.leads.load(Ordering::Relaxed);
    let status = if leads { 200 } else { status };
    if fault == Some(Fault::ResetAfter) {
        return Err(io::Error::other("reset"));
    }
    let text = if reply.is_null() { String::new() } else { reply.to_string() };
    Ok(if fault == Some(Fault::HalfBody) { half(&text) } else { page(status, &text) })
}

fn page(status: u16, text: &str) -> Answer {
    let body = Full::new(Bytes::from(text.to_owned())).map_err(never).boxed();
    Response::builder().status(status).body(body).unwrap()
}

/// Announces the whole text and sends half of it.
fn half(text: &str) -> Answer {
    let cut = &text[..text.len() / 2];
    let body = HalfBody { text: Some(Bytes::from(cut.to_owned())) }.boxed();
    Response::builder().header("content-length", text.len()).body(body).unwrap()
}

struct HalfBody {
    text: Option<Bytes>,
}

impl hyper::body::Body for HalfBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<io::Result<hyper::body::Frame<Bytes>>>> {
        std::task::Poll::Ready(Some(match self.text.take() {
            Some(text) => Ok(hyper::body::Frame::data(text)),
            None => Err(io::Error::other("cut")),
        }))
    }
}

fn never(never: Infallible) -> io::Error {
    match never {}
}
