//! `rotation`: where a rotation of the key is.

mod text;

#[cfg(test)]
mod text_tests;

use std::{
    io::{self, IsTerminal as _, Write as _},
    path::PathBuf,
    time::Duration,
};

use clap::ValueEnum;
use futures_util::future::join_all;
use k8s_openapi::jiff::SignedDuration;
use tokio::time::Instant;
use vault_kube_kms::{adapters::system::clock::SystemClock, ports::clock::Clock as _};

use self::text::{Typed, line, page};
use super::{
    inventory::count_all,
    outcome::{Outcome, print},
    source::SourceArgs,
};
use crate::{
    adapters::{api_server::metrics::ApiServerMetrics, statusz::StatuszNode},
    domain::{
        node::{KeyVersion, Node},
        problem::Problem,
        rotation::{ApiServer, Asked, Facts, Left, Phase, View},
        tally::Tally,
    },
    ports::source::Source,
};

/// The time between two questions to the nodes.
const NODES_EVERY: Duration = Duration::from_secs(2);

/// The time between two questions to the API servers. Their metrics are large.
const API_SERVERS_EVERY: Duration = Duration::from_secs(10);

/// Clears the screen of a terminal and goes to its first line.
const CLEAR: &str = "\x1b[H\x1b[2J";

/// The form of the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Output {
    Text,
    Json,
}

/// Shows where a rotation of the key is, on all nodes and API servers, and what to type next.
///
/// Exit code 0: every node and API server answered, and every API server writes the newest version.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// A node: its name, and the address of its provider's metrics, or a file with the saved JSON of
    /// its /statusz.
    ///
    /// The provider listens on the node only, and answers only to a local name. Forward its port to
    /// this machine: ssh -L 9091:127.0.0.1:9090 NODE, then --node=NODE=http://127.0.0.1:9091.
    #[arg(long = "node", value_name = "NAME=URL|FILE", required = true, value_parser = StatuszNode::parse)]
    nodes: Vec<StatuszNode>,
    /// An API server, asked for its metrics: its URL, or a context of the kubeconfig. Name each API
    /// server itself, not a load balancer.
    #[arg(long = "api-server", value_name = "URL|CONTEXT")]
    api_servers: Vec<String>,
    /// The kubeconfig for the API servers. Without --api-server, the server of its current context
    /// is asked.
    #[arg(long, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
    /// The version that must be reached. Name it when the key has just been rotated.
    #[arg(long, value_name = "VERSION")]
    expect: Option<u32>,
    /// Shows the state every 2 s on a terminal, and each change otherwise. Ends when every node and
    /// API server writes the newest version, and each node has read the key since the start.
    #[arg(long)]
    watch: bool,
    /// The longest time of --watch.
    #[arg(long, value_name = "DURATION", default_value = "15m", requires = "watch", value_parser = duration)]
    timeout: Duration,
    /// With --etcd-servers or --api-server-manifest, the objects of older versions are counted when
    /// all write the newest version.
    #[command(flatten)]
    source: SourceArgs,
    /// The form of the answer. With --watch, json prints one line for each change.
    #[arg(long, value_enum, default_value = "text")]
    output: Output,
}

fn duration(text: &str) -> Result<Duration, String> {
    let span: SignedDuration = text.parse().map_err(|error| format!("{error}"))?;
    Duration::try_from(span).map_err(|_negative| "write a positive time such as 15m".to_owned())
}

/// Runs the command.
pub(super) async fn run(args: Args) -> Result<Outcome, Problem> {
    StatuszNode::distinct(&args.nodes)?;
    let typed = typed(&args);
    let sources = Sources::of(&args).await?;
    if args.watch {
        return watch(&args, &sources, &typed).await;
    }
    let view = counted(&args.source, sources.ask(None).await?).await?;
    if view.phase == Phase::NoAnswer {
        return Err(no_answer(&view));
    }
    print(&shown(&view, &typed, args.output, true))?;
    Ok(outcome(view.is_complete()))
}

fn outcome(is_complete: bool) -> Outcome {
    if is_complete { Outcome::Good } else { Outcome::Bad }
}

fn no_answer(view: &View) -> Problem {
    let finding = view.findings.iter().find(|finding| finding.on_node);
    finding.map_or_else(
        || Problem::new("no-answer", "no node answered", "name the nodes with --node"),
        |of| {
            let cause = format!("no node answered; {}: {}: {}", of.name, of.code, of.text);
            Problem::new("no-answer", cause, of.remedy.clone())
        },
    )
}

fn shown(view: &View, typed: &Typed, output: Output, whole: bool) -> String {
    match output {
        // Cannot fail: the view has only text and numbers.
        Output::Json if whole => serde_json::to_string_pretty(view).unwrap_or_default(),
        Output::Json => serde_json::to_string(view).unwrap_or_default(),
        Output::Text => page(view, typed),
    }
}

/// Everything that is asked.
struct Sources {
    nodes: Vec<StatuszNode>,
    api_servers: Vec<ApiServerMetrics>,
    expected: Option<u32>,
    clock: SystemClock,
}

impl Sources {
    async fn of(args: &Args) -> Result<Self, Problem> {
        let kubeconfig = args.kubeconfig.as_deref();
        let mut api_servers = Vec::with_capacity(args.api_servers.len());
        for which in &args.api_servers {
            api_servers.push(ApiServerMetrics::of(Some(which), kubeconfig).await?);
        }
        if api_servers.is_empty() && kubeconfig.is_some() {
            api_servers.push(ApiServerMetrics::of(None, kubeconfig).await?);
        }
        let (nodes, expected) = (args.nodes.clone(), args.expect);
        Ok(Self { nodes, api_servers, expected, clock: SystemClock::new() })
    }

    /// Asks all at the same time. `recent` has the last answers of the API servers when they need
    /// not be asked again.
    ///
    /// # Errors
    /// `node-twice` when two nodes are one process.
    async fn ask(&self, recent: Option<Vec<Asked<ApiServer>>>) -> Result<Facts, Problem> {
        let api_servers = async {
            match recent {
                Some(recent) => recent,
                None => ask_all(&self.api_servers).await,
            }
        };
        let (nodes, api_servers) = tokio::join!(ask_all(&self.nodes), api_servers);
        let answered =
            nodes.iter().filter_map(|node| Some((&*node.name, node.answer.as_ref().ok()?)));
        StatuszNode::distinct_answers(answered)?;
        let (expected, now) = (self.expected, self.clock.wall());
        Ok(Facts { nodes, api_servers, expected, left: None, now })
    }
}

async fn ask_all<T>(sources: &[impl Source<T>]) -> Vec<Asked<T>> {
    join_all(sources.iter().map(|source| async {
        Asked { name: source.name().to_owned(), answer: source.ask().await }
    }))
    .await
}

/// Returns the view. Counts the objects of older versions first, if etcd is named and nothing else is
/// left to wait for.
async fn counted(source: &SourceArgs, mut facts: Facts) -> Result<View, Problem> {
    let view = View::of(&facts);
    let (Phase::Rewrite { left: None, .. }, true) = (&view.phase, source.is_given()) else {
        return Ok(view);
    };
    let source = source.source().await?;
    let (mut tally, mut revision) = (Tally::default(), None);
    for prefix in source.prefixes() {
        let mut objects = source.open(prefix, revision).await?;
        count_all(&mut objects, prefix, &mut tally).await?;
        revision = Some(objects.revision());
    }
    facts.left = facts.newest().and_then(|newest| left_in(&tally, newest, source.overrides()));
    Ok(View::of(&facts))
}

/// Returns which of the counted objects are not shown to be under the version `newest`. `None` when
/// all are, and others may be left in the etcd of `overrides`.
fn left_in(tally: &Tally, newest: &KeyVersion, overrides: Option<&str>) -> Option<Left> {
    let left = Left::of(tally, newest);
    (left != Left::default() || overrides.is_none()).then_some(left)
}

/// Shows the view until the rotation is complete.
async fn watch(args: &Args, sources: &Sources, typed: &Typed) -> Result<Outcome, Problem> {
    let started = Instant::now();
    let mut interrupted = std::pin::pin!(tokio::signal::ctrl_c());
    let mut ends = std::pin::pin!(tokio::time::sleep(args.timeout));
    let mut ticks = tokio::time::interval(NODES_EVERY);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let redraws = args.output == Output::Text && io::stdout().is_terminal();
    let mut asked: Option<(Instant, Vec<Asked<ApiServer>>)> = None;
    let mut before = None;
    loop {
        let recent = asked.as_ref().filter(|(at, _)| at.elapsed() < API_SERVERS_EVERY);
        let recent = recent.map(|(_, answers)| answers.clone());
        let anew = recent.is_none();
        let facts = async {
            ticks.tick().await;
            sources.ask(recent).await
        };
        let facts = tokio::select! {
            facts = facts => facts?,
            _signal = &mut interrupted => return Ok(Outcome::Bad),
            () = &mut ends => {
                let limit = format!("the rotation is not complete after {} s", args.timeout.as_secs());
                drop(writeln!(io::stderr(), "vault-kube-kmsctl: {limit}"));
                return Ok(Outcome::Bad);
            }
        };
        if anew {
            asked = Some((Instant::now(), facts.api_servers.clone()));
        }
        let view = View::of(&facts);
        if redraws {
            print(&format!("{CLEAR}{}", page(&view, typed)))?;
        } else if before.replace(state(&view)) != Some(state(&view)) {
            print(&match args.output {
                Output::Text => line(&view),
                Output::Json => shown(&view, typed, Output::Json, false),
            })?;
        }
        if view.is_complete() && all_read_since(&facts.nodes, started.elapsed()) {
            if !redraws && args.output == Output::Text {
                print(&page(&counted(&args.source, facts).await?, typed))?;
            } else if redraws && args.source.is_given() {
                let view = counted(&args.source, facts).await?;
                print(&format!("{CLEAR}{}", page(&view, typed)))?;
            }
            return Ok(Outcome::Good);
        }
    }
}

/// Returns what makes a view differ from another one, without the times in it.
fn state(view: &View) -> String {
    let phase = match view.phase {
        Phase::Takeover { version, .. } => Phase::Takeover { version, in_s: 0 },
        Phase::ApiServers { version, .. } => Phase::ApiServers { version, within_s: 0 },
        Phase::Settling { version, in_s } => {
            Phase::Settling { version, in_s: in_s.map(|_seconds| 0) }
        }
        ref phase => phase.clone(),
    };
    let findings = view.findings.iter().map(|finding| format!("{} {}", finding.name, finding.code));
    let writes = view.nodes.iter().map(|node| format!("{:?} {:?}", node.writes, node.newest));
    let told =
        view.api_servers.iter().map(|server| format!("{:?} {:?}", server.told, server.wrote));
    let parts: Vec<_> = findings.chain(writes).chain(told).collect();
    format!("{phase:?} {}", parts.join(" "))
}

/// Returns whether each node has read the key within the time `elapsed`. A node may not know yet of a
/// rotation that was typed before.
fn all_read_since(nodes: &[Asked<Node>], elapsed: Duration) -> bool {
    nodes
        .iter()
        .filter_map(|node| node.answer.as_ref().ok())
        .all(|node| node.key_read_s_ago.is_some_and(|ago| ago < elapsed.as_secs()))
}

fn typed(args: &Args) -> Typed {
    let kubeconfig = args.kubeconfig.as_ref().map(|path| path.display().to_string());
    let kubeconfig =
        kubeconfig.map_or_else(String::new, |path| format!("--kubeconfig={}", quoted(&path)));
    let nodes = args.nodes.iter().map(|node| format!("--node={}", quoted(&node.typed())));
    let nodes = nodes.collect::<Vec<_>>().join(" ");
    let mut words = vec!["vault-kube-kmsctl rotation".to_owned(), nodes.clone()];
    words.extend(args.api_servers.iter().map(|which| format!("--api-server={}", quoted(which))));
    words.extend((!kubeconfig.is_empty()).then(|| kubeconfig.clone()));
    words.extend(args.expect.map(|version| format!("--expect={version}")));
    Typed { rotation: words.join(" "), nodes, kubeconfig }
}

/// Returns `text` as one word of a POSIX shell.
fn quoted(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=@%+,[]".contains(c);
    if text.chars().all(plain) {
        text.to_owned()
    } else {
        format!("'{}'", text.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        adapters::snapshot::{SnapshotFile, tests::database},
        domain::{
            place::DEFAULT_PREFIX,
            rotation::tests::node,
            tally::tests::{key_id, ours},
        },
    };

    #[test]
    fn nothing_is_left_only_where_all_objects_were_counted() {
        let other = Some("/secrets#https://127.0.0.1:1");
        let newest = KeyVersion { key_id: key_id(2, "a"), ..node(2).versions.remove(0) };
        let mut tally = Tally::default();
        let key = b"/registry/secrets/a/b";
        tally.add(key, DEFAULT_PREFIX, &ours(&newest.key_id, "vault:v2:AA"), 1).unwrap();
        assert_eq!(left_in(&tally, &newest, None), Some(Left::default()));
        assert_eq!(left_in(&tally, &newest, other), None);
        tally.add(key, DEFAULT_PREFIX, &ours(&key_id(1, "a"), "vault:v1:AA"), 1).unwrap();
        assert_eq!(left_in(&tally, &newest, other), Some(Left { older: 1, unknown: 0 }));
    }

    /// A wrong prefix is not a prefix below which nothing is left.
    #[tokio::test]
    async fn each_prefix_has_objects() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("db");
        std::fs::write(&path, database(4096, 4, &[("/kubernetes.io/pods/a/b", Some(b"{}"))]))
            .unwrap();
        let file = SnapshotFile::open(&path).await.unwrap();
        let mut tally = Tally::default();
        for (prefix, code) in [("/kubernetes.io/", None), ("/openshft.io/", Some("no-objects"))] {
            let mut objects = file.objects(prefix.as_bytes()).await.unwrap();
            let counted = count_all(&mut objects, prefix, &mut tally).await;
            assert_eq!(counted.err().map(|problem| problem.code), code, "{prefix}");
        }
    }
}
