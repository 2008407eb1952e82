//! `inventory`: counts the stored objects by how they are encrypted, and judges which key versions
//! may be retired.

mod json;
mod list;
mod text;

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

use clap::ValueEnum;
use futures_util::future::try_join_all;
use vault_kube_kms::domain::key::KekVersion;

use self::list::{List, Listed};
use super::{
    outcome::{self, Outcome},
    progress::Progress,
    source::{Source, SourceArgs, check_prefix},
};
use crate::{
    adapters::{snapshot::SnapshotFile, statusz::StatuszNode},
    domain::{
        finding::{Finding, Severity, findings},
        judgement::{Facts, Judgement, Reason},
        needs::Needs,
        node::Node,
        place::Place,
        problem::Problem,
        stored::Stored,
        tally::Tally,
    },
    ports::{objects::Objects, source::Source as _},
};

/// Says what is encrypted with which key version, and which versions may be retired.
///
/// It reads etcd, or a snapshot of it, and changes nothing. It prints no value of an object. With
/// the states of all nodes (--node) and all backups that may be restored (--snapshot) it gives the
/// highest `min_decryption_version` that is safe.
///
/// Exit codes: 0 when all is well, 1 when objects are unreadable, or in clear where they should be
/// encrypted, or need an archived version, or --is-safe is not shown; 2 when there is no answer.
#[derive(Debug, clap::Args)]
#[command(group(
    clap::ArgGroup::new("where")
        .args(["etcd_servers", "api_server_manifest", "etcd_snapshot"])
        .required(true)
        .multiple(true)
))]
pub(super) struct Args {
    #[command(flatten)]
    source: SourceArgs,
    /// Read this snapshot of etcd instead of a live etcd.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["etcd_servers", "api_server_manifest"])]
    etcd_snapshot: Option<PathBuf>,
    /// Read only this resource, as it is written in etcd: secrets, example.com/widgets. Repeatable.
    #[arg(long = "resource", value_name = "RESOURCE")]
    resources: Vec<String>,
    /// A backup of etcd that may be restored: the versions that it needs are kept. Repeatable.
    #[arg(long = "snapshot", value_name = "FILE")]
    backups: Vec<PathBuf>,
    /// A node: its name, and the URL of its provider's metrics or a saved /statusz?format=json. Give
    /// all nodes. Repeatable.
    #[arg(long = "node", value_name = "NAME=URL|FILE", value_parser = StatuszNode::parse)]
    nodes: Vec<StatuszNode>,
    /// A resource whose objects must all be encrypted, besides secrets. Repeatable.
    #[arg(long, value_name = "RESOURCE")]
    expect_encrypted: Vec<String>,
    /// End with exit code 1 unless it is shown that this `min_decryption_version` is safe.
    #[arg(long, value_name = "VERSION", value_parser = version)]
    is_safe: Option<KekVersion>,
    /// List the objects themselves instead, one in a line: all, or those in one state.
    #[arg(long, value_name = "STATE", num_args = 0..=1, default_missing_value = "all")]
    list: Option<Listed>,
    /// How to print.
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    output: Output,
}

/// How to print.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Output {
    /// For people.
    Text,
    /// For machines: one JSON object, or with --list one in each line.
    Json,
}

fn version(text: &str) -> Result<KekVersion, String> {
    KekVersion::parse(text).ok_or_else(|| "is not a version; write a number such as 3".to_owned())
}

/// What was read of one source.
#[derive(Debug)]
struct Read {
    name: String,
    tally: Tally,
}

/// The live etcd, or the snapshot that stands for it.
#[derive(Debug)]
enum Main<'a> {
    Live(Box<Source>),
    Snapshot(&'a Path, SnapshotFile),
}

/// Everything that is printed.
#[derive(Debug)]
struct Report {
    /// The live etcd, or the snapshot that stands for it.
    read: Read,
    is_live: bool,
    backups: Vec<Read>,
    facts: Facts,
    judgement: Judgement,
    findings: Vec<Finding>,
    /// The version that the operator asked about, and whether it is safe.
    asked: Option<(KekVersion, bool)>,
}

pub(super) async fn run(args: Args) -> Result<Outcome, Problem> {
    // The nodes first: a node that has settled on a version before the objects are read adds no
    // object of an older version afterwards.
    let nodes = nodes(&args.nodes).await?;
    let mut backup_files = Vec::new();
    for path in &args.backups {
        backup_files.push((path, SnapshotFile::open(path).await?));
    }
    let mut list = args.list.map(|listed| List::new(listed, args.output == Output::Json));
    let main = match &args.etcd_snapshot {
        Some(path) => Main::Snapshot(path, SnapshotFile::open(path).await?),
        None => Main::Live(Box::new(args.source.source().await?)),
    };
    // The backups have the prefixes of the live etcd, which the manifest may name.
    let prefixes = match &main {
        Main::Snapshot(..) => args.source.prefixes(None),
        Main::Live(source) => source.prefixes().to_vec(),
    };
    let (read, unread) = read_main(&args, &main, &prefixes, &mut list).await?;
    if read.tally.objects() == 0 && list.is_none() {
        return Err(Problem::new(
            "no-objects",
            format!("{} has no objects below {}", read.name, prefixes.join(" or ")),
            "check --etcd-prefix and --resource",
        ));
    }
    let mut backups = Vec::new();
    for (path, file) in backup_files {
        backups.push(read_snapshot(&args, path, &file, &prefixes, &mut None).await?);
    }
    let report = Report::of(&args, read, backups, nodes, unread);
    if let Some(list) = list {
        list.end()?;
    } else {
        outcome::print(
            match args.output {
                Output::Text => text::render(&report),
                Output::Json => json::render(&report),
            }
            .trim_end(),
        )?;
    }
    Ok(report.outcome())
}

impl Report {
    fn of(
        args: &Args,
        read: Read,
        backups: Vec<Read>,
        nodes: Vec<(String, Node)>,
        unread: Vec<Reason>,
    ) -> Self {
        let is_live = args.etcd_snapshot.is_none();
        let needs = Needs::of(&read.tally);
        let api_servers = if is_live { read.tally.api_servers() } else { 0 };
        let mut of_backups: Vec<_> =
            backups.iter().map(|backup| (backup.name.clone(), Needs::of(&backup.tally))).collect();
        let live = if is_live {
            Some(needs)
        } else {
            of_backups.insert(0, (read.name.clone(), needs));
            None
        };
        let facts = Facts { live, backups: of_backups, nodes, api_servers, unread };
        let judgement = Judgement::of(&facts);
        let secrets = std::iter::once("secrets".to_owned());
        let expected: BTreeSet<String> =
            args.expect_encrypted.iter().cloned().chain(secrets).collect();
        let mut findings = findings(&read.tally, &expected);
        findings.extend(judgement.broken.iter().map(|reason| Finding {
            severity: Severity::Bad,
            code: reason.code,
            text: reason.text.clone(),
        }));
        findings.extend(judgement.notes.iter().map(|reason| Finding {
            severity: Severity::Notice,
            code: reason.code,
            text: reason.text.clone(),
        }));
        let asked = args.is_safe.map(|version| (version, judgement.is_safe(version)));
        Self { read, is_live, backups, facts, judgement, findings, asked }
    }

    fn outcome(&self) -> Outcome {
        let is_bad = self.findings.iter().any(|finding| finding.severity == Severity::Bad);
        if is_bad || self.asked.is_some_and(|(_, is_safe)| !is_safe) {
            Outcome::Bad
        } else {
            Outcome::Good
        }
    }
}

/// Asks the nodes for their states, all at once.
async fn nodes(named: &[StatuszNode]) -> Result<Vec<(String, Node)>, Problem> {
    StatuszNode::distinct(named)?;
    let asked =
        named.iter().map(|node| async move { Ok((node.name().to_owned(), node.ask().await?)) });
    let nodes = try_join_all(asked).await?;
    StatuszNode::distinct_answers(nodes.iter().map(|(name, node)| (name.as_str(), node)))?;
    Ok(nodes)
}

/// Counts the objects of the live etcd, or of the snapshot that stands for it. Returns also what it
/// did not read.
async fn read_main(
    args: &Args,
    main: &Main<'_>,
    prefixes: &[String],
    list: &mut Option<List>,
) -> Result<(Read, Vec<Reason>), Problem> {
    let mut unread = Vec::new();
    if !args.resources.is_empty() {
        unread.push(Reason::new(
            "resources-left-out",
            format!("only {} was read (--resource)", args.resources.join(" and ")),
        ));
    }
    let source = match main {
        Main::Snapshot(path, file) => {
            return Ok((read_snapshot(args, path, file, prefixes, list).await?, unread));
        }
        Main::Live(source) => source,
    };
    if let Some(overrides) = source.overrides() {
        unread.push(Reason::new(
            "other-etcd",
            format!(
                "the API server keeps some resources in another etcd \
                 (--etcd-servers-overrides={overrides}); run the command for that one too"
            ),
        ));
    }
    let mut tally = Tally::default();
    let mut revision = None;
    let mut name = String::new();
    for prefix in prefixes {
        let before = tally.objects();
        for below in below(prefix, &args.resources) {
            let mut objects = source.open(&below, revision).await?;
            count(&mut objects, prefix, &[], &mut tally, list).await?;
            revision = Some(objects.revision());
            name = objects.name();
        }
        if args.resources.is_empty() {
            check_prefix(&name, prefix, tally.objects().saturating_sub(before))?;
        }
    }
    Ok((Read { name, tally }, unread))
}

/// Returns the beginnings of the keys to read: of the resources, or of all objects.
fn below(prefix: &str, resources: &[String]) -> Vec<String> {
    if resources.is_empty() {
        return vec![prefix.to_owned()];
    }
    resources.iter().map(|resource| format!("{prefix}{}/", resource.trim_matches('/'))).collect()
}

/// Counts the objects of a snapshot.
async fn read_snapshot(
    args: &Args,
    path: &Path,
    file: &SnapshotFile,
    prefixes: &[String],
    list: &mut Option<List>,
) -> Result<Read, Problem> {
    let mut read = Read { name: path.display().to_string(), tally: Tally::default() };
    for prefix in prefixes {
        let before = read.tally.objects();
        let mut objects = file.objects(prefix.as_bytes()).await?;
        count(&mut objects, prefix, &args.resources, &mut read.tally, list).await?;
        if args.resources.is_empty() {
            check_prefix(&read.name, prefix, read.tally.objects().saturating_sub(before))?;
        }
    }
    Ok(read)
}

/// Counts all objects of a source whose keys are below `prefix`.
///
/// # Errors
/// `no-objects` when there is none. When the source cannot be read.
pub(super) async fn count_all(
    objects: &mut dyn Objects,
    prefix: &str,
    tally: &mut Tally,
) -> Result<(), Problem> {
    let before = tally.objects();
    count(objects, prefix, &[], tally, &mut None).await?;
    check_prefix(&objects.name(), prefix, tally.objects().saturating_sub(before))
}

/// Counts the objects of a source whose keys are below `prefix`. Leaves out objects of other
/// resources than `resources`, unless that is empty.
async fn count(
    objects: &mut dyn Objects,
    prefix: &str,
    resources: &[String],
    tally: &mut Tally,
    list: &mut Option<List>,
) -> Result<(), Problem> {
    let mut progress = Progress::of(&objects.name());
    let mut read = 0_u64;
    let mut next = objects.next_page().await?;
    while let Some(page) = next {
        read = read.saturating_add(u64::try_from(page.len()).unwrap_or(u64::MAX));
        // Asks for the next page, and counts this one in the meantime.
        let counted = async {
            for object in &page {
                let stored = Stored::of(&object.value);
                if is_left_out(&object.key, prefix, resources) {
                    continue;
                }
                tally.add(&object.key, prefix, &stored, object.mod_revision)?;
                if let Some(list) = list {
                    list.add(&object.key, prefix, &stored, object.mod_revision);
                }
            }
            Ok::<(), Problem>(())
        };
        let (following, counted) = tokio::join!(objects.next_page(), counted);
        counted?;
        next = following?;
        progress.at(read, objects.count());
    }
    Ok(())
}

fn is_left_out(key: &[u8], prefix: &str, resources: &[String]) -> bool {
    !resources.is_empty()
        && Place::of(key, prefix)
            .is_none_or(|place| !resources.iter().any(|resource| resource == place.resource))
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::adapters::snapshot::tests::database;

    #[derive(clap::Parser)]
    struct Program {
        #[command(flatten)]
        args: Args,
    }

    fn args(flags: &[String]) -> Args {
        let words = std::iter::once("inventory").chain(flags.iter().map(String::as_str));
        Program::try_parse_from(words).unwrap().args
    }

    /// Writes a snapshot with one object of this key, and returns its path.
    fn snapshot(dir: &tempfile::TempDir, name: &str, key: &str) -> String {
        let path = dir.path().join(name);
        std::fs::write(&path, database(4096, 4, &[(key, Some(b"{}"))])).unwrap();
        path.display().to_string()
    }

    #[tokio::test]
    async fn a_backup_without_objects_is_not_one_that_needs_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let here = snapshot(&dir, "here", "/registry/pods/a/b");
        let elsewhere = snapshot(&dir, "elsewhere", "/kubernetes.io/pods/a/b");
        let flags = |backup: &str| {
            args(&[format!("--etcd-snapshot={here}"), format!("--snapshot={backup}")])
        };
        assert_eq!(run(flags(&here)).await.unwrap(), Outcome::Good);
        let problem = run(flags(&elsewhere)).await.unwrap_err();
        assert_eq!(problem.code, "no-objects");
        assert!(problem.to_string().contains("elsewhere has no objects below /registry/"));
    }

    #[tokio::test]
    async fn each_prefix_has_objects() {
        let dir = tempfile::tempdir().unwrap();
        let file = snapshot(&dir, "db", "/kubernetes.io/pods/a/b");
        for list in [None, Some("--list")] {
            let mut flags = vec![
                format!("--etcd-snapshot={file}"),
                "--etcd-prefix=kubernetes.io,openshft.io".to_owned(),
            ];
            flags.extend(list.map(str::to_owned));
            let problem = run(args(&flags)).await.unwrap_err();
            assert_eq!(problem.code, "no-objects");
            assert!(problem.to_string().contains("below /openshft.io/"), "{problem}");
        }
    }
}
