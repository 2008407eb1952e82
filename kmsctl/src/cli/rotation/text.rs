//! The view for people.

use crate::{
    cli::table::{Column, table},
    domain::{
        finding::objects,
        rotation::{ApiServerRow, NodeRow, Phase, View, offset},
    },
};

const NODE_COLUMNS: &[Column] = &[
    Column::Left("NODE"),
    Column::Left("WRITES"),
    Column::Left("NEWEST"),
    Column::Left("TAKES OVER"),
    Column::Left("KEY READ"),
    Column::Left("CLOCK"),
    Column::Left("STATE"),
];

const API_SERVER_COLUMNS: &[Column] = &[
    Column::Left("API SERVER"),
    Column::Left("LAST WROTE"),
    Column::Left("STATUS SAYS"),
    Column::Left("ASKED"),
    Column::Left("SEEDS"),
];

/// What was typed to get the view, for the commands that come next.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Typed {
    /// The command with all its flags but `--watch`.
    pub(super) rotation: String,
    /// The flags `--node` with their values.
    pub(super) nodes: String,
    /// The flag `--kubeconfig` with its value, or nothing.
    pub(super) kubeconfig: String,
}

/// Returns the whole view: tables, state, findings and the next commands. Ends without a line break.
pub(super) fn page(view: &View, typed: &Typed) -> String {
    let nodes: Vec<_> = view.nodes.iter().map(node_cells).collect();
    let mut lines = vec![table(NODE_COLUMNS, &nodes)];
    if !view.api_servers.is_empty() {
        let servers: Vec<_> = view.api_servers.iter().map(api_server_cells).collect();
        lines.extend([String::new(), table(API_SERVER_COLUMNS, &servers)]);
    }
    lines.push(String::new());
    lines.push(line(view));
    for finding in &view.findings {
        let mark = if finding.blocks { "!" } else { "-" };
        lines.push(format!(
            "{mark} {}: {}: {}; {}",
            finding.name, finding.code, finding.text, finding.remedy
        ));
    }
    lines.push("Next:".to_owned());
    lines.extend(next(view, typed).into_iter().map(|command| format!("  {command}")));
    lines.join("\n")
}

/// Returns the state of the rotation in one line.
pub(super) fn line(view: &View) -> String {
    let what = match &view.phase {
        Phase::NoAnswer => "No node answered.".to_owned(),
        Phase::DifferentKeys { version } => {
            format!("The nodes use different keys: version {version} has more than one key_id.")
        }
        Phase::Unread { version } => {
            let behind = named(view.nodes.iter().filter(|node| {
                node.state != "no answer" && node.newest.is_none_or(|newest| newest < *version)
            }));
            format!("Version {version} is not read yet by: {behind}.")
        }
        Phase::Takeover { version, in_s: 0 } => {
            format!("Version {version} takes over as soon as every node has proven it.")
        }
        Phase::Takeover { version, in_s } => {
            format!("Version {version} takes over in {in_s} s, on all nodes.")
        }
        Phase::ApiServers { version, within_s } => {
            let behind = view.api_servers.iter().filter(|server| {
                server.answered && (server.told != Some(*version) || server.wrote != Some(*version))
            });
            let behind: Vec<_> = behind.map(|server| server.name.as_str()).collect();
            format!(
                "Every node writes version {version}. An API server asks Status once a minute; \
                 within {within_s} s these follow: {}.",
                behind.join(", ")
            )
        }
        Phase::Settling { version, in_s: Some(in_s) } => format!(
            "Every node writes version {version}. Not every API server was asked (--api-server). In \
             {in_s} s all of them write it."
        ),
        Phase::Settling { version, in_s: None } => format!(
            "Every node writes version {version}. Not every API server was asked (--api-server), and \
             it is not known since when each node writes it."
        ),
        Phase::Rewrite { version, left, unknown } => {
            format!("All write version {version}. {}", left_over(*left, *unknown))
        }
        Phase::Done { version } => {
            format!("All write version {version}. No object is left under an older version.")
        }
        Phase::Steady { version } => {
            format!("All write version {version}. It is the only version that can be used.")
        }
    };
    let blocked = view.findings.iter().filter(|finding| finding.blocks).count();
    let silent = view.nodes.iter().filter(|node| node.state == "no answer").count()
        + view.api_servers.iter().filter(|server| !server.answered).count();
    match (view.phase.all_write_newest(), silent, blocked) {
        (true, 0, 0) | (false, 0, _) => what,
        (true, 0, _) => format!("{what} But see below."),
        (_, silent, _) => format!("{what} No answer from {silent}: see below."),
    }
}

/// Returns what is left of older versions, in words.
fn left_over(left: Option<u64>, unknown: Option<u64>) -> String {
    let Some(left) = left else {
        return "Objects of older versions may be left; they were not counted.".to_owned();
    };
    let mut parts = Vec::new();
    if left > 0 {
        let are = if left == 1 { "is" } else { "are" };
        parts.push(format!("{} {are} left under older versions.", objects(left)));
    }
    if let Some(unknown) = unknown.filter(|unknown| *unknown > 0) {
        let need = if unknown == 1 { "needs" } else { "need" };
        parts.push(format!("It is not known which version {} {need}.", objects(unknown)));
    }
    parts.join(" ")
}

fn named<'a>(nodes: impl Iterator<Item = &'a NodeRow>) -> String {
    nodes.map(|node| node.name.as_str()).collect::<Vec<_>>().join(", ")
}

/// Returns the next commands: one or two.
fn next(view: &View, typed: &Typed) -> Vec<String> {
    let watch = format!("{} --watch", typed.rotation);
    let waits = ["version-unread"];
    let blocking = view
        .findings
        .iter()
        .find(|finding| finding.blocks && !waits.contains(&finding.code.as_str()));
    if let Some(finding) = blocking {
        let look = match (finding.on_node, finding.code.as_str()) {
            (true, "node-unreachable") => format!(
                "on {}: systemctl status vault-kube-kms, or crictl ps --all --name vault-kube-kms",
                finding.name
            ),
            (true, _) => {
                format!("on {}: curl -s 'http://127.0.0.1:9090/statusz?format=json'", finding.name)
            }
            (false, _) => {
                let which = if finding.name.contains("://") { "server" } else { "context" };
                let mut words = vec!["kubectl".to_owned(), typed.kubeconfig.clone()];
                words.push(format!("--{which}={} get --raw '/readyz?verbose'", finding.name));
                words.retain(|word| !word.is_empty());
                words.join(" ")
            }
        };
        return vec![look, watch];
    }
    let inventory = "vault-kube-kmsctl inventory \
                     --api-server-manifest=/etc/kubernetes/manifests/kube-apiserver.yaml";
    let inventory = format!("{inventory} {}", typed.nodes).trim_end().to_owned();
    match &view.phase {
        Phase::Rewrite { .. } => {
            let rewrite =
                format!("vault-kube-kmsctl rewrite --resource=secrets {}", typed.kubeconfig);
            vec![
                format!("{}   # and the other encrypted resources", rewrite.trim_end()),
                format!("{inventory}   # on a control-plane node; says what is left"),
            ]
        }
        Phase::Done { .. } => {
            vec![format!("{inventory}   # on a control-plane node; names the highest safe minimum")]
        }
        Phase::Settling { in_s: Some(in_s), .. } => {
            vec![format!("sleep {in_s}; {}", typed.rotation)]
        }
        Phase::Settling { in_s: None, .. } => {
            vec![format!("{} --api-server=URL   # once for each API server", typed.rotation)]
        }
        Phase::Steady { .. } => vec!["nothing; docs/rotation.md says how to rotate".to_owned()],
        _ => vec![watch],
    }
}

fn node_cells(node: &NodeRow) -> Vec<String> {
    vec![
        node.name.clone(),
        version(node.writes),
        version(node.newest),
        match node.takes_over_in_s {
            None => "-".to_owned(),
            Some(0) => "proving".to_owned(),
            Some(in_s) => format!("in {in_s} s"),
        },
        ago(node.key_read_s_ago),
        match node.clock_ahead_s {
            None if node.state == "no answer" => "-".to_owned(),
            None => "saved".to_owned(),
            Some(0) => "same".to_owned(),
            Some(ahead) => offset(ahead).replace(" of", ""),
        },
        node.state.clone(),
    ]
}

fn api_server_cells(server: &ApiServerRow) -> Vec<String> {
    if !server.answered {
        let dash = || "-".to_owned();
        return vec![server.name.clone(), "no answer".to_owned(), dash(), dash(), dash()];
    }
    vec![
        server.name.clone(),
        version(server.wrote),
        version(server.told),
        ago(server.told_s_ago),
        server.seeds.map_or("-".to_owned(), |seeds| seeds.to_string()),
    ]
}

fn version(number: Option<u32>) -> String {
    number.map_or("-".to_owned(), |number| format!("v{number}"))
}

fn ago(seconds: Option<u64>) -> String {
    seconds.map_or("-".to_owned(), |seconds| format!("{seconds} s ago"))
}
