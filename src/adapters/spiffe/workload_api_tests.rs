//! Tests against an agent that the test itself serves on a real socket.

use std::{
    fs,
    path::PathBuf,
    pin::Pin,
    sync::atomic::{AtomicUsize, Ordering},
};

use futures_util::{Stream, stream};
use tempfile::TempDir;
use tokio::{
    net::UnixListener,
    runtime::{Builder, Runtime},
};
use tonic::{Code as Grpc, Request, Response, Status, transport::Server};

use super::*;
use crate::{
    adapters::spiffe::{
        connection::MARK,
        wire::{
            Jwtsvid, JwtsvidResponse, X509svid,
            spiffe_workload_api_server::{SpiffeWorkloadApi, SpiffeWorkloadApiServer},
        },
    },
    domain::error::Code,
};

/// The longest time of one step of a test.
const BOUND: Duration = Duration::from_secs(20);

const FAST: Pace = Pace {
    answer: Duration::from_millis(500),
    silence: Duration::from_mins(1),
    first_wait: Duration::from_millis(5),
    last_wait: Duration::from_millis(20),
};

/// What the agent answers.
#[derive(Clone, Debug)]
enum Answer {
    /// SVIDs with these IDs. The number is in each private key.
    Svids(Vec<&'static str>, u8),
    Refusal(Grpc),
    /// Nothing.
    Silence,
}

type Certificates = Pin<Box<dyn Stream<Item = Result<X509svidResponse, Status>> + Send>>;

#[derive(Debug)]
struct Answers {
    now: watch::Receiver<Answer>,
    streams: Arc<AtomicUsize>,
}

fn checked<T>(request: &Request<T>) -> Result<(), Status> {
    let mark = request.metadata().get(MARK).and_then(|value| value.to_str().ok());
    (mark == Some("true")).then_some(()).ok_or_else(|| Status::invalid_argument("no mark"))
}

#[tonic::async_trait]
impl SpiffeWorkloadApi for Answers {
    type FetchX509SVIDStream = Certificates;

    async fn fetch_x509svid(
        &self,
        request: Request<X509svidRequest>,
    ) -> Result<Response<Certificates>, Status> {
        checked(&request)?;
        self.streams.fetch_add(1, Ordering::SeqCst);
        let mut changes = self.now.clone();
        changes.mark_changed();
        let next = |mut changes: watch::Receiver<Answer>| async move {
            loop {
                changes.changed().await.ok()?;
                let now = changes.borrow_and_update().clone();
                let answer = match now {
                    Answer::Silence => continue,
                    Answer::Refusal(code) => Err(Status::new(code, "canary")),
                    Answer::Svids(ids, key) => Ok(X509svidResponse {
                        svids: ids
                            .into_iter()
                            .map(|id| X509svid {
                                spiffe_id: id.to_owned(),
                                x509_svid: vec![0x30, 1, key, 0x30, 0],
                                x509_svid_key: vec![key],
                            })
                            .collect(),
                    }),
                };
                return Some((answer, changes));
            }
        };
        Ok(Response::new(Box::pin(stream::unfold(changes, next))))
    }

    async fn fetch_jwtsvid(
        &self,
        request: Request<JwtsvidRequest>,
    ) -> Result<Response<JwtsvidResponse>, Status> {
        checked(&request)?;
        let JwtsvidRequest { audience, spiffe_id } = request.into_inner();
        let now = self.now.borrow().clone();
        match now {
            Answer::Silence => pending().await,
            Answer::Refusal(code) => Err(Status::new(code, "canary")),
            Answer::Svids(ids, _) => Ok(Response::new(JwtsvidResponse {
                svids: ids
                    .into_iter()
                    .filter(|id| spiffe_id.is_empty() || spiffe_id == *id)
                    .map(|id| Jwtsvid {
                        spiffe_id: id.to_owned(),
                        svid: format!("{id}#{}", audience.concat()),
                    })
                    .collect(),
            })),
        }
    }
}

/// An agent with a runtime of its own, so that its end closes each connection as the end of a
/// process does.
struct Agent {
    runtime: Option<Runtime>,
    answers: watch::Sender<Answer>,
    streams: Arc<AtomicUsize>,
}

impl Agent {
    /// Starts an agent at `socket`, in place of the socket of an agent that has ended.
    fn start(socket: &Path, answer: Answer) -> Self {
        drop(fs::remove_file(socket));
        let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let (answers, now) = watch::channel(answer);
        let streams = Arc::new(AtomicUsize::new(0));
        let service = Answers { now, streams: Arc::clone(&streams) };
        let listener = {
            let _runtime = runtime.enter();
            UnixListener::bind(socket).unwrap()
        };
        let connections = stream::unfold(listener, |listener| async {
            let accepted = listener.accept().await.map(|(stream, _)| stream);
            Some((accepted, listener))
        });
        let service = SpiffeWorkloadApiServer::new(service);
        let server = Server::builder().add_service(service);
        runtime.spawn(async move { server.serve_with_incoming(connections).await });
        Self { runtime: Some(runtime), answers, streams }
    }

    fn answer(&self, answer: Answer) {
        self.answers.send_replace(answer);
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        // A runtime must not wait for its end within another one.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// The place of a socket, and a source of identities from it.
struct Bench {
    socket: PathBuf,
    _dir: TempDir,
}

impl Bench {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        Self { socket: dir.path().join("agent.sock"), _dir: dir }
    }

    fn source(&self, id: Option<&str>, pace: Pace) -> Arc<WorkloadApi> {
        let settings = AgentSettings { socket: self.socket.clone(), id: id.map(str::to_owned) };
        Arc::new(WorkloadApi::with_pace(settings, pace))
    }

    /// Returns a source that follows the certificates until the test ends.
    fn following(&self, pace: Pace) -> Arc<WorkloadApi> {
        let source = self.source(None, pace);
        let follower = Arc::clone(&source);
        tokio::spawn(async move { follower.follow().await });
        source
    }
}

/// Waits for the certificate whose private key is `key`.
async fn until_key(source: &WorkloadApi, key: u8) -> Arc<IdentityCertificate> {
    let mut known: Option<Arc<IdentityCertificate>> = None;
    let wait = async {
        loop {
            let next = source.next_certificate(known.as_deref()).await;
            if next.key.expose() == [key] {
                return next;
            }
            known = Some(next);
        }
    };
    timeout(BOUND, wait).await.expect("the certificate does not arrive")
}

/// Waits for a problem whose text contains `text`.
async fn until_problem(source: &WorkloadApi, text: &str) {
    let mut changes = source.known.subscribe();
    let is_told = |known: &Known| {
        known.problem.as_ref().is_some_and(|problem| problem.to_string().contains(text))
    };
    let told = timeout(BOUND, changes.wait_for(is_told)).await.is_ok();
    assert!(told, "{:?}", source.known.borrow().problem);
}

const A: &str = "spiffe://example.org/a";
const B: &str = "spiffe://example.org/b";

#[tokio::test]
async fn follows_the_rotation_of_the_first_certificate() {
    let bench = Bench::new();
    let agent = Agent::start(&bench.socket, Answer::Svids(vec![A, B], 1));
    let source = bench.following(FAST);
    let first = until_key(&source, 1).await;
    assert_eq!((first.id.as_str(), first.chain.len()), (A, 2));
    agent.answer(Answer::Svids(vec![B], 2));
    assert_eq!(until_key(&source, 2).await.id, B);
    assert_eq!(agent.streams.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn fetches_a_jwt_of_the_first_or_the_wanted_identity() {
    let bench = Bench::new();
    let _agent = Agent::start(&bench.socket, Answer::Svids(vec![A, B], 1));
    let of = async |id| bench.source(id, FAST).jwt("vault").await;
    assert_eq!(of(None).await.unwrap().expose(), format!("{A}#vault"));
    assert_eq!(of(Some(B)).await.unwrap().expose(), format!("{B}#vault"));
    let error = of(Some("spiffe://example.org/c")).await.unwrap_err();
    assert_eq!(error.code(), Code::CredentialUnreadable);
}

#[tokio::test]
async fn finds_an_agent_that_starts_later() {
    let bench = Bench::new();
    let source = bench.following(FAST);
    until_problem(&source, "has no socket there").await;
    assert_eq!(source.certificate().await.unwrap_err().code(), Code::CredentialUnreadable);
    assert!(source.jwt("v").await.unwrap_err().to_string().contains("has no socket there"));
    let _agent = Agent::start(&bench.socket, Answer::Svids(vec![A], 1));
    until_key(&source, 1).await;
    assert!(source.jwt("v").await.is_ok());
}

#[tokio::test]
async fn keeps_the_certificate_while_the_agent_is_away_and_finds_its_next_socket() {
    let bench = Bench::new();
    let agent = Agent::start(&bench.socket, Answer::Svids(vec![A], 1));
    let source = bench.following(FAST);
    until_key(&source, 1).await;
    drop(agent);
    until_problem(&source, "its socket refuses connections").await;
    assert_eq!(source.certificate().await.unwrap().key.expose(), [1]);
    let _agent = Agent::start(&bench.socket, Answer::Svids(vec![A], 2));
    until_key(&source, 2).await;
}

#[tokio::test]
async fn heals_when_a_registration_entry_is_made() {
    let bench = Bench::new();
    let agent = Agent::start(&bench.socket, Answer::Refusal(Grpc::PermissionDenied));
    let source = bench.following(FAST);
    until_problem(&source, "has no identity for this process").await;
    let error = source.jwt("v").await.unwrap_err();
    assert!(error.remedy().contains("unix:uid:"), "{error}");
    assert!(!error.to_string().contains("canary"), "{error}");
    agent.answer(Answer::Svids(vec![A], 1));
    until_key(&source, 1).await;
    assert!(source.known.borrow().problem.is_none());
    // The entry is deleted: the certificate stays valid until it expires.
    agent.answer(Answer::Refusal(Grpc::PermissionDenied));
    until_problem(&source, "has no identity for this process").await;
    assert!(source.certificate().await.is_ok());
}

#[tokio::test]
async fn an_answer_without_a_usable_certificate_is_a_problem_and_not_the_end() {
    let bench = Bench::new();
    let agent = Agent::start(&bench.socket, Answer::Svids(Vec::new(), 1));
    let source = bench.following(FAST);
    until_problem(&source, "sends no SVID").await;
    agent.answer(Answer::Svids(vec![A], 2));
    until_key(&source, 2).await;
    assert_eq!(agent.streams.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn gives_up_on_an_agent_that_does_not_answer() {
    let bench = Bench::new();
    let agent = Agent::start(&bench.socket, Answer::Silence);
    let source = bench.following(FAST);
    until_problem(&source, "does not answer within 0.5 s").await;
    let asked = timeout(BOUND, source.jwt("v")).await.unwrap();
    assert!(asked.unwrap_err().to_string().contains("does not answer within 0.5 s"));
    agent.answer(Answer::Svids(vec![A], 1));
    until_key(&source, 1).await;
}

#[tokio::test]
async fn gives_up_on_a_process_that_does_not_speak() {
    let bench = Bench::new();
    let _listener = UnixListener::bind(&bench.socket).unwrap();
    let asked = timeout(BOUND, bench.source(None, FAST).jwt("v")).await.unwrap();
    assert!(asked.unwrap_err().to_string().contains("does not answer"));
}

#[tokio::test]
async fn opens_a_silent_stream_again() {
    let bench = Bench::new();
    let agent = Agent::start(&bench.socket, Answer::Svids(vec![A], 1));
    let source = bench.following(Pace { silence: Duration::from_millis(50), ..FAST });
    until_key(&source, 1).await;
    // The socket belongs to another agent now, and the first one still runs.
    let _other = Agent::start(&bench.socket, Answer::Svids(vec![A], 2));
    until_key(&source, 2).await;
    assert!(source.known.borrow().problem.is_none());
    drop(agent);
}

#[test]
fn waits_for_at_most_five_seconds_after_a_failure() {
    let settings = AgentSettings { socket: PathBuf::from("/a"), id: None };
    let source = WorkloadApi::new(settings);
    assert_eq!(source.wait_after(1), Duration::from_millis(250));
    assert_eq!(source.wait_after(2), Duration::from_millis(500));
    assert_eq!(source.wait_after(u32::MAX), Duration::from_secs(5));
}
