//! Answers the requests to one node, or leaves them without an answer.

use std::{convert::Infallible, io, time::SystemTime};

use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body_util::{BodyExt as _, Full, combinators::BoxBody};
use hyper::body::{Body, Frame, Incoming};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use super::{
    address,
    auth::{ROLE_ID, USED},
    cluster::{Condition, State, Wire},
    network::{Network, Way},
    transit::{Reply, refusal},
};
use crate::{
    chance::Chance,
    clock::wall_ms,
    invariants::{
        FEW_IN_FLIGHT, FOREIGN_LEFT_ALONE, IN_FLIGHT_MAX, IN_FLIGHT_SINGLY_MAX,
        LOGIN_REQUESTS_PER_MINUTE, LOGINS_PER_MINUTE, NAME_FOLLOWED, NAME_FOLLOWED_WITHIN,
        NO_LOCKOUT, NO_LOGIN_STORM, REFUSED_FOR, REFUSED_PAIR_RESTS,
    },
    plants::Plant,
};

/// A request that was sent before the answer came may still arrive.
const UNDER_WAY: std::time::Duration = std::time::Duration::from_millis(10);

type Answer = Response<BoxBody<Bytes, io::Error>>;

/// A request as the node reads it.
struct Asked {
    path: String,
    token: Option<String>,
    index: Option<u32>,
    body: Value,
}

/// Answers `request` of `network`'s client to `node`.
pub async fn respond(network: Network, way: Way, request: Request<Incoming>) -> io::Result<Answer> {
    let node = way.node;
    let (parts, body) = request.into_parts();
    let body = body.collect().await.map_err(io::Error::other)?.to_bytes();
    let asked = Asked {
        path: parts.uri.path().trim_start_matches("/v1/").to_owned(),
        token: text(&parts.headers, "x-vault-token"),
        index: text(&parts.headers, "x-vault-index").and_then(|index| index.parse().ok()),
        body: serde_json::from_slice(&body).unwrap_or(Value::Null),
    };
    let _out = Out::new(&network);
    note(&network, way, &asked);
    let mut draw = network.draw(node, &[asked.path.as_bytes(), &body].concat());
    let latency = network.cluster.state().latency(&mut draw);
    sleep(latency).await;
    network.cluster.met(node, |condition| condition == Condition::Serving).await;
    let wire = network.cluster.state().wire(&asked.path, &mut draw);
    match wire {
        Wire::Reset => return Err(io::Error::other("reset")),
        Wire::Proxy => return Ok(page(502, "<html><h1>502 Bad Gateway</h1></html>".to_owned())),
        Wire::Good | Wire::ResetAfter | Wire::HalfBody => (),
    }
    let proxy = network.cluster.state().nodes[way.name].proxy;
    if let Some(proxy) = proxy.filter(|proxy| proxy.answers(&asked.path)) {
        trace(&network, way, &asked, format_args!("{proxy:?}"));
        network.cluster.state().meet(super::proxy::Page::event(&asked.path));
        let (head, text) = proxy.answer();
        return Ok(head.body(whole(text)).unwrap());
    }
    let ((status, reply), to) = carry_out(&network, way, &asked, draw);
    trace(&network, way, &asked, format_args!("{status}"));
    let text = if reply.is_null() { String::new() } else { reply.to_string() };
    let mut answer = match wire {
        // A client must get each refusal, because it repeats a lost login once.
        Wire::ResetAfter if status == 200 => return Err(io::Error::other("reset")),
        Wire::HalfBody if status == 200 => half(&text),
        _ => page(status, text),
    };
    let mut state = network.cluster.state();
    if asked.path == "sys/health" && !(wire == Wire::HalfBody && status == 200) {
        let foreign = state.nodes[node].foreign;
        state.measures.told_foreign(network.client, way.name, foreign);
        if foreign {
            state.meet("foreign endpoint");
        }
    }
    let headers = answer.headers_mut();
    let now = wall_ms(network.cluster.journal.started()) / 1_000;
    let now = SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(now as u64);
    headers.insert("date", httpdate::fmt_http_date(now).parse().unwrap());
    if state.tells_index {
        headers.insert("x-vault-index", state.known(node).to_string().parse().unwrap());
    }
    if let (429, Some(Some(seconds))) = (status, state.quota) {
        headers.insert("retry-after", seconds.to_string().parse().unwrap());
    }
    if let Some(to) = to {
        headers.insert("location", format!("{}/v1/{}", address(to), asked.path).parse().unwrap());
    }
    Ok(answer)
}

fn trace(network: &Network, way: Way, asked: &Asked, answer: std::fmt::Arguments<'_>) {
    let (client, path) = (network.client, &asked.path);
    network.cluster.journal.trace_only(format_args!("{client} {way:?} {path} {answer}"));
}

/// Counts the requests of a call, and checks that the client may ask this node.
fn note(network: &Network, way: Way, asked: &Asked) {
    let Network { cluster, client, .. } = network;
    let moved = {
        let mut state = cluster.state();
        let is_former = way.node == way.name && state.resolved(way.name) != way.name;
        let at = state.nodes[way.name].moves_at.filter(|_| is_former);
        at.map(|at| {
            state.meet("name that moved");
            state.measures.asked_after_move(*client, way.name, at)
        })
    };
    if let Some(first) = moved.filter(|first| first.elapsed() > NAME_FOLLOWED_WITHIN) {
        let what = format_args!("plugin {client} still asks {way:?} after {:?}", first.elapsed());
        cluster.journal.violated(&NAME_FOLLOWED, what);
    }
    let foreign = cluster.state().measures.known_foreign(*client, way.name);
    if asked.path != "sys/health" && foreign.is_some_and(|since| since.elapsed() > UNDER_WAY) {
        let what = format_args!("plugin {client} asks {way:?} for {}", asked.path);
        cluster.journal.violated(&FOREIGN_LEFT_ALONE, what);
    }
    if asked.path == "auth/approle/login" {
        // Counts from the arrival: a node that hangs may carry out later what the client gave up.
        // A foreign cluster refuses the pair for itself.
        let mut state = cluster.state();
        let foreign = state.nodes[way.node].foreign;
        let refused = state.measures.refused_ago(*client, &pair(&asked.body));
        drop(state);
        if let Some(ago) = refused.filter(|ago| !foreign && *ago < REFUSED_FOR) {
            let what = format_args!("plugin {client} tries what was refused {ago:?} ago");
            cluster.journal.violated(&REFUSED_PAIR_RESTS, what);
        }
        let within = cluster.state().measures.login_asked(*client);
        if within > LOGIN_REQUESTS_PER_MINUTE {
            let what = format_args!("plugin {client} asked {within} times in a minute");
            cluster.journal.violated(&NO_LOGIN_STORM, what);
        }
    }
    let content = match asked.path.as_str() {
        "transit/encrypt/k1" => &asked.body["plaintext"],
        "transit/decrypt/k1" => &asked.body["ciphertext"],
        _ => return,
    };
    if let Some(content) = content.as_str() {
        cluster.state().measures.asked_for(*client, content);
    }
}

fn carry_out(network: &Network, way: Way, asked: &Asked, draw: Chance) -> (Reply, Option<usize>) {
    let (reply, to) = answer(network, way, asked, draw);
    let measures = &mut network.cluster.state().measures;
    measures.answered(network.client, &asked.path, reply.0);
    (reply, to)
}

fn answer(network: &Network, way: Way, asked: &Asked, mut draw: Chance) -> (Reply, Option<usize>) {
    let (mut state, node) = (network.cluster.state(), way.node);
    let foreign = state.nodes[node].foreign;
    if asked.path == "sys/health" {
        let (status, mut reply) = health(&state, node);
        if foreign && network.plant != Some(Plant::UnsaidForeign) {
            reply["cluster_id"] = json!("another");
        }
        return ((status, reply), None);
    }
    if foreign {
        let (status, text) = match asked.path.as_str() {
            "auth/approle/login" => (400, "invalid role or secret ID"),
            "sys/wrapping/lookup" | "sys/wrapping/unwrap" => (400, USED),
            _ => (403, "permission denied"),
        };
        return (refusal(status, text), None);
    }
    let server = match state.server_of(node, &asked.path, asked.index, &mut draw) {
        Ok(server) => server,
        Err(refused) => return refused,
    };
    if state.quota.is_some() {
        let text = format!("request path \"{}\": rate limit quota exceeded", asked.path);
        return (refusal(429, &text), None);
    }
    // Only a read has no body. It asks whether the mount exists.
    if asked.path == "auth/approle/login" && asked.body.is_null() {
        return (refusal(405, "unsupported operation"), None);
    }
    if asked.path == "auth/approle/login" {
        return (login(network, &mut state, &asked.body), None);
    }
    if asked.path == "sys/wrapping/lookup" {
        state.meet("wrapping looked up");
        return (state.auth.look_up_wrapping(&asked.body["token"]), None);
    }
    if asked.path == "sys/wrapping/unwrap" {
        state.meet("wrapping used up");
        return (state.auth.unwrap(asked.token.as_deref().unwrap()), None);
    }
    if let Err(refused) = state.auth.check(asked.token.as_deref()) {
        return (refused, None);
    }
    let token = asked.token.as_deref().unwrap();
    let reply = match asked.path.as_str() {
        "auth/token/renew-self" => state.auth.renew(token),
        "auth/token/revoke-self" => state.auth.revoke(token),
        "sys/license/status" => {
            state.meet("licence read");
            (200, json!({"data": {"autoloaded": {"license_id": "the-model"}}}))
        }
        path => {
            state.note_answer(server);
            transit(&state, server, path, &asked.body, draw)
        }
    };
    (reply, None)
}

fn health(state: &State, node: usize) -> Reply {
    if state.nodes[node].sealed {
        return (503, json!({"initialized": true, "sealed": true}));
    }
    let active = state.leader == Some(node) || state.nodes[node].foreign;
    let status = if active { 200 } else { 429 };
    (status, json!({"initialized": true, "sealed": false, "cluster_id": "the-model"}))
}

fn transit(state: &State, server: usize, path: &str, body: &Value, draw: Chance) -> Reply {
    if state.mount_gone {
        let text = format!("no handler for route \"{path}\". route entry not found.");
        return refusal(404, &text);
    }
    let known = state.known(server);
    match (path, body["batch_input"].as_array()) {
        ("transit/keys/k1", _) => state.transit.read(known),
        ("transit/encrypt/k1", _) => state.transit.encrypt(body, known, draw),
        ("transit/decrypt/k1", Some(items)) => state.transit.decrypt_batch(items, known, draw),
        ("transit/decrypt/k1", None) => state.transit.decrypt(body, known),
        _ => refusal(403, "1 error occurred:\n\t* permission denied\n\n"),
    }
}

/// Returns the pair of role ID and secret ID in a login.
fn pair(body: &Value) -> String {
    format!("{ROLE_ID} {}", body["secret_id"])
}

/// Logs in, and checks the rules of logins.
fn login(network: &Network, state: &mut State, body: &Value) -> Reply {
    let Network { cluster, client, .. } = network;
    let broken = |rule, what: std::fmt::Arguments<'_>| cluster.journal.violated(rule, what);
    let lockouts = state.auth.lockouts;
    let (status, reply) = state.auth.login(body);
    cluster.journal.say(format_args!("plugin {client} logs in: {status}"));
    if status == 200 {
        let within = state.measures.login_granted(*client);
        if within > LOGINS_PER_MINUTE {
            broken(&NO_LOGIN_STORM, format_args!("plugin {client}: {within} logins in a minute"));
        }
    }
    // The client itself refuses such a token.
    if status == 200 && state.auth.num_uses > 0 {
        state.measures.answered(*client, "auth/approle/login", 400);
    }
    // The client must spare only a pair that the server has checked and refused.
    if status == 400 {
        state.measures.login_refused(*client, &pair(body));
    }
    if state.auth.lockouts > lockouts {
        broken(&NO_LOCKOUT, format_args!("plugin {client} finds the role locked"));
    }
    (status, reply)
}

/// Counts a request until it is dropped.
struct Out(Network);

impl Out {
    fn new(network: &Network) -> Self {
        let Network { cluster, client, .. } = network;
        let mut state = cluster.state();
        let out = state.measures.enter(*client);
        let singly = state.transit.refuses_batches || Instant::now() < state.singly_until;
        let most = if singly { IN_FLIGHT_SINGLY_MAX } else { IN_FLIGHT_MAX };
        if out > most {
            let what = format_args!("plugin {client} has {out} requests out");
            cluster.journal.violated(&FEW_IN_FLIGHT, what);
        }
        Self(network.clone())
    }
}

impl Drop for Out {
    fn drop(&mut self) {
        self.0.cluster.state().measures.leave(self.0.client);
    }
}

fn text(headers: &HeaderMap, name: &str) -> Option<String> {
    headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned)
}

fn page(status: u16, text: String) -> Answer {
    Response::builder().status(status).body(whole(text)).unwrap()
}

fn whole(text: String) -> BoxBody<Bytes, io::Error> {
    Full::new(Bytes::from(text)).map_err(|never: Infallible| match never {}).boxed()
}

/// Announces the whole text and sends half of it.
fn half(text: &str) -> Answer {
    let cut = Bytes::from(text[..text.len() / 2].to_owned());
    let body = HalfBody(Some(cut)).boxed();
    Response::builder().header("content-length", text.len()).body(body).unwrap()
}

struct HalfBody(Option<Bytes>);

impl Body for HalfBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<io::Result<Frame<Bytes>>>> {
        std::task::Poll::Ready(Some(match self.0.take() {
            Some(text) => Ok(Frame::data(text)),
            None => Err(io::Error::other("cut")),
        }))
    }
}
