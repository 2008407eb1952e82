//! Reads `/statusz` of a provider over HTTP, or from a file in which its JSON was saved.

use std::{collections::HashSet, path::PathBuf, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use http::{Request, StatusCode, Uri, header};
use http_body_util::{BodyExt as _, Empty, LengthLimitError, Limited};
use hyper_util::rt::TokioIo;
use k8s_openapi::jiff::Timestamp;
use serde::Deserialize;
use tokio::net::TcpStream;
use vault_kube_kms::{
    adapters::system::{
        bounded_file::{self, Kinds},
        clock::SystemClock,
    },
    domain::{key::KekVersion, key_id::KeyId, time::UnixTime},
    ports::clock::Clock as _,
};

use crate::{
    domain::{
        node::{Fault, KeyVersion, Node, Role},
        problem::{Problem, another_form},
    },
    ports::source::Source,
};

/// The longest time for the whole answer.
const TIMEOUT: Duration = Duration::from_secs(5);

/// The largest answer, in bytes. A state has at most 100 versions.
const ANSWER_MAX: usize = 1 << 20;

/// How old a saved state may be. A node may have restarted with other settings since.
const SAVED_FOR: Duration = Duration::from_hours(1);

const FORWARD: &str = "forward its port to this machine, such as with ssh -L 9091:127.0.0.1:9090 NODE, and name \
     http://127.0.0.1:9091";

/// Where the state of a node comes from.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Place {
    /// The host and port of the provider's metrics, and the path of `/statusz`.
    Http {
        authority: String,
        path: String,
    },
    File(PathBuf),
}

/// A node: its name, and where its state comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StatuszNode {
    name: String,
    place: Place,
}

impl StatuszNode {
    /// Reads `NAME=URL` or `NAME=FILE`. A URL without a path gets `/statusz`.
    ///
    /// # Errors
    /// Returns what is wrong with `text`, in words.
    pub fn parse(text: &str) -> Result<Self, String> {
        let (name, place) = text.split_once('=').unwrap_or_default();
        if name.is_empty() || place.is_empty() || name.contains(['/', ':']) {
            return Err("write NAME=URL or NAME=FILE, such as cp-1=http://127.0.0.1:9091".into());
        }
        let place = if place.starts_with("https://") {
            return Err("a provider serves /statusz over http; write http://".into());
        } else if place.starts_with("http://") {
            let uri: Uri = place.parse().map_err(|error| format!("not a valid URL: {error}"))?;
            let authority = uri.authority().ok_or("the URL has no host")?;
            let port = authority.port_u16().unwrap_or(80);
            let path = match uri.path() {
                "" | "/" => "/statusz",
                path => path,
            };
            Place::Http { authority: format!("{}:{port}", authority.host()), path: path.to_owned() }
        } else {
            Place::File(PathBuf::from(place))
        };
        Ok(Self { name: name.to_owned(), place })
    }

    /// Checks that no node is given twice. One that is left out by mistake would not be missed.
    ///
    /// # Errors
    /// `node-twice` when two nodes have one name or one address.
    pub fn distinct(nodes: &[Self]) -> Result<(), Problem> {
        let (mut names, mut places) = (HashSet::new(), HashSet::new());
        for node in nodes {
            if !names.insert(&node.name) || !places.insert(&node.place) {
                let cause =
                    format!("the name or the address of the node {} is given twice", node.name);
                return Err(twice(cause));
            }
        }
        Ok(())
    }

    /// Checks that the states of `nodes` come from different processes. Two forwarded ports may lead
    /// to one node.
    ///
    /// # Errors
    /// `node-twice` when two states come from one process.
    pub fn distinct_answers<'a>(
        nodes: impl IntoIterator<Item = (&'a str, &'a Node)>,
    ) -> Result<(), Problem> {
        let same = Node::same_process(nodes);
        same.map_or(Ok(()), |(one, other)| {
            Err(twice(format!(
                "the nodes {one} and {other} are one process: both states are of it"
            )))
        })
    }

    /// Returns the value of `--node` that stands for this node.
    #[must_use]
    pub fn typed(&self) -> String {
        match &self.place {
            Place::Http { authority, path } if path == "/statusz" => {
                format!("{}=http://{authority}", self.name)
            }
            Place::Http { authority, path } => format!("{}=http://{authority}{path}", self.name),
            Place::File(path) => format!("{}={}", self.name, path.display()),
        }
    }

    async fn read(&self) -> Result<Node, Problem> {
        match &self.place {
            Place::Http { authority, path } => {
                let json = tokio::time::timeout(TIMEOUT, get(authority, path)).await;
                let json = json.unwrap_or_else(|_elapsed| {
                    let cause =
                        format!("{authority} did not answer within {} s", TIMEOUT.as_secs());
                    Err(unreachable(cause))
                })?;
                let here = SystemClock::new().wall();
                let mut node = parse(&json, authority)?;
                node.ahead_s = Some(node.now.secs().saturating_sub(here.secs()));
                Ok(node)
            }
            Place::File(path) => {
                let (file, shown) = (path.clone(), path.display().to_string());
                let most = u64::try_from(ANSWER_MAX).unwrap_or(u64::MAX);
                let read = tokio::task::spawn_blocking(move || {
                    bounded_file::read_in_time(&file, most, Kinds::Plain)
                });
                let read = read.await.unwrap_or_else(|error| Err(error.to_string()));
                let json = read.map_err(|why| {
                    let remedy = "save the answer of /statusz?format=json in a file again";
                    Problem::new("state-unreadable", format!("{shown} {why}"), remedy)
                })?;
                let node = parse(json.expose(), &shown)?;
                let apart = SystemClock::new().wall().apart(node.now);
                if apart > SAVED_FOR {
                    return Err(Problem::new(
                        "state-old",
                        format!(
                            "the state in {shown} is {} min away from the time of this machine",
                            apart.as_secs() / 60
                        ),
                        "save the answer of /statusz?format=json of this node again",
                    ));
                }
                Ok(node)
            }
        }
    }
}

#[async_trait]
impl Source<Node> for StatuszNode {
    fn name(&self) -> &str {
        &self.name
    }

    async fn ask(&self) -> Result<Node, Problem> {
        self.read().await
    }
}

fn twice(cause: String) -> Problem {
    Problem::new("node-twice", cause, "give each node once, with its own name and address")
}

fn unreachable(cause: String) -> Problem {
    Problem::new("node-unreachable", cause, format!("see whether its provider runs, and {FORWARD}"))
}

/// Gets `path` from `authority` over one new connection.
async fn get(authority: &str, path: &str) -> Result<Bytes, Problem> {
    let fails = |error: &dyn std::fmt::Display| unreachable(format!("{authority}: {error}"));
    let stream = TcpStream::connect(authority).await.map_err(|error| fails(&error))?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|e| fails(&e))?;
    let request = Request::get(path)
        .header(header::HOST, authority)
        .header(header::ACCEPT, "application/json")
        .body(Empty::<Bytes>::new())
        .map_err(|error| fails(&error))?;
    let exchange = async {
        let response = sender.send_request(request).await.map_err(|error| fails(&error))?;
        match response.status() {
            StatusCode::OK => {}
            StatusCode::MISDIRECTED_REQUEST => {
                return Err(Problem::new(
                    "name-not-local",
                    format!("{authority} is not a name that the provider answers to"),
                    FORWARD,
                ));
            }
            status => {
                return Err(Problem::new(
                    "state-unreadable",
                    format!("{authority}{path} answers with {status}"),
                    "name the address of the provider's metrics (--metrics-port)",
                ));
            }
        }
        let body = Limited::new(response.into_body(), ANSWER_MAX).collect().await;
        let body = body.map_err(|error| {
            if error.is::<LengthLimitError>() {
                Problem::new(
                    "state-unreadable",
                    format!("the answer of {authority}{path} has more than {ANSWER_MAX} bytes"),
                    "name the address of the provider's metrics (--metrics-port)",
                )
            } else {
                fails(&error)
            }
        })?;
        Ok(body.to_bytes())
    };
    tokio::pin!(connection, exchange);
    tokio::select! {
        answer = &mut exchange => answer,
        ended = &mut connection => match ended {
            Err(error) => Err(fails(&error)),
            // The server has closed the connection. The answer may be read already.
            Ok(()) => exchange.await,
        },
    }
}

/// The fields of `/statusz` that matter here. Others are ignored, so that providers of other releases
/// can be read.
#[derive(Debug, Deserialize)]
#[expect(clippy::struct_field_names, reason = "the JSON has these names")]
struct State {
    process: Option<String>,
    now: String,
    state: String,
    problem: Option<Told>,
    versions: Vec<Version>,
    writing_s: Option<u64>,
    key_read_s_ago: Option<u64>,
}

#[derive(Debug, Deserialize)]
struct Told {
    code: String,
    cause: String,
    remedy: String,
}

#[derive(Debug, Deserialize)]
#[expect(clippy::struct_field_names, reason = "the JSON has these names")]
struct Version {
    version: u32,
    key_id: String,
    role: String,
    created: String,
    writes_from: String,
}

/// Reads the JSON of `/statusz`. `from` names its source in errors.
///
/// # Errors
/// `state-unreadable` when it is not the JSON of `/statusz`.
pub(crate) fn parse(json: &[u8], from: &str) -> Result<Node, Problem> {
    let unreadable = |error: &dyn std::fmt::Display| {
        Problem::new(
            "state-unreadable",
            format!("{from} is not the JSON of /statusz: {error}"),
            "name the address of the provider's metrics, or a saved answer of /statusz?format=json",
        )
    };
    let state: State = serde_json::from_slice(json)
        .map_err(|error| unreadable(&another_form(Some((error.line(), error.column())))))?;
    let now = time(&state.now).ok_or_else(|| unreadable(&"its time is not RFC 3339"))?;
    let fails = match state.state.as_str() {
        "healthy" => None,
        "ailing" => Some(false),
        "failing" => Some(true),
        other => return Err(unreadable(&format!("the state {:?} is not known", short(other)))),
    };
    let fault = fails.map(|fails| {
        let told = state.problem.unwrap_or_else(|| Told {
            code: state.state.clone(),
            cause: "the provider does not say why".to_owned(),
            remedy: "read its log".to_owned(),
        });
        Fault {
            fails,
            code: short(&told.code),
            cause: short(&told.cause),
            remedy: short(&told.remedy),
        }
    });
    let versions = state.versions.into_iter().map(|version| {
        let role = match version.role.as_str() {
            "writes" => Role::Writes,
            "waits" => Role::Waits,
            "reads" => Role::Reads,
            "archived" => Role::Archived,
            other => return Err(unreadable(&format!("the role {:?} is not known", short(other)))),
        };
        let number = KekVersion::new(version.version);
        Ok(KeyVersion {
            version: number.ok_or_else(|| unreadable(&"it has a version 0"))?,
            hash: KeyId::hash_of(&version.key_id),
            key_id: short(&version.key_id),
            role,
            created: time(&version.created),
            writes_from: time(&version.writes_from),
        })
    });
    let versions = versions.collect::<Result<_, _>>()?;
    let (writing_s, key_read_s_ago) = (state.writing_s, state.key_read_s_ago);
    let process = short(&state.process.unwrap_or_default());
    Ok(Node { process, now, ahead_s: None, fault, versions, writing_s, key_read_s_ago })
}

/// Returns `text` on one line without control characters, and not longer than a line of a log.
fn short(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(1_000).collect()
}

fn time(text: &str) -> Option<UnixTime> {
    let at: Timestamp = text.parse().ok()?;
    Some(UnixTime::from_millis(at.as_millisecond()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEALTHY: &str = r#"{"version": "vault-kube-kms 9", "now": "2026-01-01T00:01:00Z",
        "state": "healthy", "problem": null, "takeover": {"version": 2, "in_s": 7},
        "versions": [
          {"version": 2, "key_id": "v2.x", "role": "waits", "created": "2026-01-01T00:00:07Z",
           "writes_from": "2026-01-01T00:01:07Z"},
          {"version": 1, "key_id": "v1.x", "role": "writes", "created": "not known",
           "writes_from": "not known"}],
        "key_read_s_ago": 4, "process": "1f", "added_later": true}"#;

    #[test]
    fn names_a_url_or_a_file() {
        let http = |authority: &str, path: &str| Place::Http {
            authority: authority.to_owned(),
            path: path.to_owned(),
        };
        for (text, place) in [
            ("a=http://127.0.0.1:9090", http("127.0.0.1:9090", "/statusz")),
            ("a=http://[::1]:9090/", http("[::1]:9090", "/statusz")),
            ("a=http://localhost/x/statusz?format=json", http("localhost:80", "/x/statusz")),
            ("a=/tmp/x=y.json", Place::File("/tmp/x=y.json".into())),
        ] {
            let name = "a".to_owned();
            assert_eq!(StatuszNode::parse(text), Ok(StatuszNode { name, place }), "{text}");
        }
        for text in ["", "a", "=x", "a=", "http://127.0.0.1:9090?a=b", "a=https://b", "a=http://"] {
            assert!(StatuszNode::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn reads_versions_roles_and_times() {
        let node = parse(HEALTHY.as_bytes(), "cp-1").unwrap();
        assert_eq!(node.now, UnixTime::from_secs(1_767_225_660));
        assert_eq!((node.fault.as_ref(), node.key_read_s_ago), (None, Some(4)));
        let [next, first] = node.versions.as_slice() else { panic!("{node:?}") };
        assert_eq!((next.role, first.role), (Role::Waits, Role::Writes));
        assert_eq!(next.writes_from, Some(UnixTime::from_secs(1_767_225_667)));
        assert_eq!(first.created, None);
        assert_eq!(next.hash, KeyId::hash_of("v2.x"));
    }

    #[test]
    fn a_state_that_fails_has_the_words_of_the_provider_on_one_line() {
        let problem = r#"{"code": "keeper-sealed", "cause": "a\nb", "remedy": "unseal it"}"#;
        let json = HEALTHY
            .replace(r#""problem": null"#, &format!(r#""problem": {problem}"#))
            .replace("healthy", "failing");
        let fault = parse(json.as_bytes(), "cp-1").unwrap().fault.unwrap();
        assert!(fault.fails && fault.code == "keeper-sealed" && fault.cause == "a b", "{fault:?}");
        let silent = HEALTHY.replace("healthy", "ailing");
        let fault = parse(silent.as_bytes(), "cp-1").unwrap().fault.unwrap();
        assert!(!fault.fails && fault.code == "ailing", "{fault:?}");
    }

    /// Serves `answer` to one connection, and returns what a node at that address says.
    async fn told(answer: String) -> Result<Node, Problem> {
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let serves = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = [0; 1_024];
            let read = stream.read(&mut request).await.unwrap();
            // The client may have closed the connection.
            drop(stream.write_all(answer.as_bytes()).await);
            drop(stream.shutdown().await);
            String::from_utf8_lossy(request.get(..read).unwrap()).to_lowercase()
        };
        let node = StatuszNode::parse(&format!("a=http://{address}")).unwrap();
        let (request, told) = tokio::join!(serves, node.ask());
        assert!(request.starts_with("get /statusz http/1.1"), "{request}");
        assert!(request.contains(&format!("host: {address}")), "{request}");
        told
    }

    fn http(status: &str, body: &str) -> String {
        format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n{body}", body.len())
    }

    #[tokio::test]
    async fn asks_over_http_and_compares_the_clocks() {
        let node = told(http("200 OK", HEALTHY)).await.unwrap();
        // The state is of the first minute of 2026.
        assert!(node.ahead_s.unwrap() < 0, "{node:?}");
    }

    #[tokio::test]
    async fn names_what_is_wrong_with_an_answer() {
        let long = " ".repeat(ANSWER_MAX + 1);
        for (answer, code) in [
            (http("421 Misdirected Request", ""), "name-not-local"),
            (http("404 Not Found", ""), "state-unreadable"),
            (http("200 OK", "<html>"), "state-unreadable"),
            (http("200 OK", &long), "state-unreadable"),
            ("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{".to_owned(), "node-unreachable"),
            ("SSH-2.0-OpenSSH\r\n".to_owned(), "node-unreachable"),
            (String::new(), "node-unreachable"),
        ] {
            let error = told(answer.clone()).await.unwrap_err();
            assert_eq!(error.code, code, "{answer:.60}: {error}");
        }
    }

    #[tokio::test]
    async fn a_saved_state_is_of_this_hour() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("cp-1.json");
        let now = SystemClock::new().wall().secs();
        for (ahead_min, code) in
            [(0, None), (-59, None), (-61, Some("state-old")), (61, Some("state-old"))]
        {
            let at = Timestamp::from_second(now + 60 * ahead_min).unwrap().to_string();
            std::fs::write(&path, HEALTHY.replace("2026-01-01T00:01:00Z", &at)).unwrap();
            let node = StatuszNode::parse(&format!("cp-1={}", path.display())).unwrap();
            assert_eq!(node.ask().await.err().map(|error| error.code), code, "{ahead_min}");
        }
    }

    #[test]
    fn names_each_node_once() {
        let distinct = |nodes: &[&str]| {
            let nodes: Vec<_> =
                nodes.iter().map(|text| StatuszNode::parse(text).unwrap()).collect();
            StatuszNode::distinct(&nodes).map_err(|problem| problem.code)
        };
        assert_eq!(distinct(&["a=http://127.0.0.1:1", "b=http://127.0.0.1:2", "c=/f"]), Ok(()));
        for nodes in [
            ["a=http://127.0.0.1:1", "a=http://127.0.0.1:2"],
            ["a=http://127.0.0.1:1", "b=http://127.0.0.1:1/statusz"],
            ["a=/f", "b=/f"],
        ] {
            assert_eq!(distinct(&nodes), Err("node-twice"), "{nodes:?}");
        }
    }

    #[test]
    fn names_two_nodes_that_are_one_process() {
        let node = |process: &str| {
            let json = HEALTHY.replace("\"process\": \"1f\"", process);
            parse(json.as_bytes(), "x").unwrap()
        };
        let told = |processes: [&str; 3]| {
            let nodes = processes.map(node);
            let error = StatuszNode::distinct_answers(["a", "b", "c"].into_iter().zip(&nodes));
            error.err().map(|problem| (problem.code, problem.cause))
        };
        let (one, two) = ("\"process\": \"1f\"", "\"process\": \"2f\"");
        let of_an_earlier_release = "\"x\": 1";
        assert_eq!(told([one, two, of_an_earlier_release]), None);
        assert_eq!(told([of_an_earlier_release, of_an_earlier_release, one]), None);
        let (code, cause) = told([one, two, one]).unwrap();
        assert_eq!(code, "node-twice");
        assert!(cause.contains("a and c"), "{cause}");
    }

    #[test]
    fn rejects_what_is_not_a_state() {
        for text in [
            "",
            "<html>",
            "[]",
            "{}",
            &HEALTHY.replace("waits", "dances"),
            &HEALTHY.replace("healthy", "fine"),
            &HEALTHY.replace("2026-01-01T00:01:00Z", "noon"),
            &HEALTHY.replace("\"version\": 2, \"key_id\"", "\"version\": -2, \"key_id\""),
        ] {
            let error = parse(text.as_bytes(), "cp-1").unwrap_err();
            assert_eq!(error.code, "state-unreadable", "{text}");
        }
    }
}
