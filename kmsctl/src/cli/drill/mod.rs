//! `drill`: proves that a keeper can read what a snapshot of etcd has.

mod list;
mod page;
mod text;

use std::{future::Future, path::PathBuf, sync::Arc, time::Duration};

use clap::ValueEnum;
use futures_util::{StreamExt as _, stream};
use serde::Serialize;
use vault_kube_kms::{
    adapters::{atomic_file, system::clock::SystemClock},
    domain::{error::KmsError, time::UnixTime},
    ports::clock::Clock,
};

use self::list::UnreadableList;
use super::{
    outcome::{self, Outcome},
    progress::Progress,
    source::{check_prefix, with_slashes},
};
use crate::{
    adapters::{
        keeper_seeds::KeeperSeeds,
        plugin_seeds::PluginSeeds,
        snapshot::{Digest, Facts, SnapshotFile},
    },
    domain::{
        drill::{Drill, Sample, Scope, no_answer},
        drill_report::{KeyVersions, Report, SnapshotFacts, Totals, Verdict},
        keeper_facts::KeeperFacts,
        object::Object,
        place::DEFAULT_PREFIX,
        problem::Problem,
        stored::Stored,
    },
    ports::{objects::Objects, seeds::Seeds},
};

/// The number of seeds that are unwrapped at the same time.
const CONCURRENCY: usize = 8;

/// The pauses between two calls to a keeper that is away.
const FIRST_PAUSE: Duration = Duration::from_millis(250);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// The code of a damaged snapshot. It is a result, and not a missing answer.
const DAMAGED: &str = "snapshot-damaged";

/// Proves that a keeper can read a snapshot of etcd: unwraps every distinct seed, and opens objects
/// as the API server does.
///
/// The keeper is the one of the provider's settings (--config, variables, or flags after --), or a
/// running plugin (--plugin). The drill only reads. It prints no value of an object.
///
/// Exit codes: 0 when everything is readable, 1 when something is not or the snapshot is damaged,
/// 2 when the keeper or the file gives no answer.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The file that `etcdctl snapshot save` wrote, or a copy of member/snap/db.
    #[arg(long, value_name = "FILE")]
    snapshot: PathBuf,

    /// The configuration file of the provider.
    #[arg(long, value_name = "FILE", conflicts_with = "plugin")]
    config: Option<PathBuf>,

    /// The socket of a running KMS v2 plugin, in place of a keeper.
    #[arg(long, value_name = "unix:///PATH", conflicts_with = "flags")]
    plugin: Option<String>,

    /// With --plugin: tests only objects of this name in the `EncryptionConfiguration`.
    #[arg(long, value_name = "NAME", requires = "plugin")]
    provider: Option<String>,

    /// The API server's --etcd-prefix. `OpenShift` has two: kubernetes.io and openshift.io.
    #[arg(long, value_name = "PREFIX,...", value_delimiter = ',', default_value = DEFAULT_PREFIX)]
    etcd_prefix: Vec<String>,

    /// Tests only this resource, such as secrets or example.com/widgets.
    #[arg(long, value_name = "RESOURCE")]
    resource: Option<String>,

    /// Opens this many objects of each resource under each seed, the newest first.
    #[arg(long, value_name = "N", default_value_t = 10, conflicts_with = "all", value_parser = clap::value_parser!(u64).range(1..))]
    sample: u64,

    /// Opens all objects.
    #[arg(long)]
    all: bool,

    /// Waits this long for a keeper that is away, for each seed.
    #[arg(long, value_name = "SECONDS", default_value_t = 30, value_parser = clap::value_parser!(u64).range(0..=3600))]
    wait: u64,

    /// Writes the report to this file, which ends in .json or .html. Repeatable.
    #[arg(long, value_name = "FILE", value_parser = report_file)]
    report: Vec<PathBuf>,

    /// Writes all objects that cannot be read to this file: a reason, a tab and the key in etcd in each line. Written only when the drill has a result.
    #[arg(long, value_name = "FILE")]
    list_unreadable: Option<PathBuf>,

    /// The form of the answer.
    #[arg(long, value_enum, default_value = "text")]
    output: Form,

    /// Flags of `vault-kube-kms serve`.
    #[arg(last = true, value_name = "FLAGS")]
    flags: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Form {
    Text,
    Json,
}

impl Args {
    /// Returns the prefixes of etcd, with a slash at both ends, as the API server uses them.
    fn roots(&self) -> Vec<String> {
        self.etcd_prefix.iter().map(|prefix| with_slashes(prefix)).collect()
    }

    /// Returns the beginning of the keys that are tested below `root`.
    fn below(&self, root: &str) -> String {
        match &self.resource {
            Some(resource) => format!("{root}{}/", resource.trim_matches('/')),
            None => root.to_owned(),
        }
    }

    fn sample(&self) -> Sample {
        if self.all { Sample::All } else { Sample::Newest(self.sample) }
    }
}

fn report_file(text: &str) -> Result<PathBuf, String> {
    let path = PathBuf::from(text);
    let end = path.extension().and_then(|end| end.to_str());
    if matches!(end, Some("json" | "html")) {
        return Ok(path);
    }
    Err("the name of a report ends in .json or .html".to_owned())
}

pub(super) async fn run(args: Args) -> Result<Outcome, Problem> {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    let began = (clock.wall(), clock.now());
    let file = SnapshotFile::open(&args.snapshot).await?;
    let mut report = empty_report(&args, file.facts(), began.0);
    let mut list = match &args.list_unreadable {
        Some(path) => Some(UnreadableList::create(path).await?),
        None => None,
    };
    let done = drill(&args, &file, clock.as_ref(), &mut report, list.as_mut()).await;
    let done = match list {
        Some(list) => list.end(done).await,
        None => done,
    };
    match done {
        Err(problem) if problem.code == DAMAGED => {
            report.verdict = Verdict::Damaged;
            report.snapshot.problem = Some(problem.cause);
        }
        other => other?,
    }
    report.seconds = clock.now().since(began.1).as_secs_f64();
    outcome::print(&match args.output {
        Form::Text => text::text(&report),
        Form::Json => json(&report)?,
    })?;
    for path in &args.report {
        let is_json = path.extension().is_some_and(|end| end == "json");
        let text = if is_json { json(&report)? } else { page::page(&report).into_string() };
        atomic_file::replace(path, text.as_bytes()).map_err(|error| {
            Problem::new(
                "report-not-written",
                format!("cannot write {}: {error}", path.display()),
                "give a file in a folder that this user may write",
            )
        })?;
    }
    Ok(if report.verdict == Verdict::Readable { Outcome::Good } else { Outcome::Bad })
}

/// The report for machines, with the words of the other forms.
#[derive(Serialize)]
struct Answer<'a> {
    #[serde(flatten)]
    report: &'a Report,
    result: String,
    limits: Vec<String>,
}

fn json(report: &Report) -> Result<String, Problem> {
    serde_json::to_string_pretty(&Answer {
        report,
        result: report.sentence(),
        limits: report.limits(),
    })
    .map_err(|error| Problem::new("internal", error, "report this as a bug"))
}

fn empty_report(args: &Args, facts: &Facts, began: UnixTime) -> Report {
    Report {
        verdict: Verdict::Damaged,
        program: format!("vault-kube-kmsctl {}", env!("CARGO_PKG_VERSION")),
        began: rfc3339(began),
        seconds: 0.0,
        snapshot: SnapshotFacts {
            file: facts.name.clone(),
            size: facts.size,
            sha256: facts.sha256.clone(),
            digest: match facts.digest {
                Digest::Fits => "fits",
                Digest::Absent => "absent",
                Digest::Differs => "differs",
            },
            revision: None,
            prefixes: args.roots().iter().map(|root| args.below(root)).collect(),
            problem: None,
        },
        keeper: KeeperFacts::default(),
        sample: if args.all {
            "all objects".to_owned()
        } else {
            format!("the newest {} of each resource under each seed", args.sample)
        },
        resource: args.resource.clone(),
        totals: Totals::default(),
        versions: KeyVersions::default(),
        groups: Vec::new(),
        failures: Vec::new(),
    }
}

/// Runs the drill and fills the report.
async fn drill(
    args: &Args,
    file: &SnapshotFile,
    clock: &dyn Clock,
    report: &mut Report,
    list: Option<&mut UnreadableList>,
) -> Result<(), Problem> {
    let sources = sources(args, file, report).await?;
    let wait = Duration::from_secs(args.wait);
    if let Some(address) = &args.plugin {
        let plugin = PluginSeeds::at(address)?;
        let facts = patiently(clock, wait, || plugin.facts()).await;
        let scope = Scope::Plugin(args.provider.clone());
        let drill = begin(args, scope, facts, report)?;
        return walk(args, drill, sources, (clock, wait), &plugin, report, list).await;
    }
    let config = args.config.iter().map(|path| format!("--config={}", path.display()));
    let flags: Vec<_> = config.chain(args.flags.iter().cloned()).collect();
    let keeper = KeeperSeeds::open(&flags)?;
    let facts = patiently(clock, wait, || keeper.facts()).await;
    let scope = Scope::Ours { legacy: keeper.legacy };
    let done = match begin(args, scope, facts, report) {
        Ok(drill) => walk(args, drill, sources, (clock, wait), &keeper, report, list).await,
        Err(problem) => Err(problem),
    };
    keeper.close().await;
    done
}

/// Returns the objects below each prefix.
async fn sources(
    args: &Args,
    file: &SnapshotFile,
    report: &mut Report,
) -> Result<Vec<(String, Box<dyn Objects>)>, Problem> {
    let mut sources: Vec<(String, Box<dyn Objects>)> = Vec::new();
    for root in args.roots() {
        let objects = file.objects(args.below(&root).as_bytes()).await?;
        report.snapshot.revision = Some(objects.revision());
        sources.push((root, Box::new(objects)));
    }
    Ok(sources)
}

fn begin(
    args: &Args,
    scope: Scope,
    facts: Result<KeeperFacts, KmsError>,
    report: &mut Report,
) -> Result<Drill, Problem> {
    let facts = facts.map_err(|error| no_answer(&error))?;
    report.keeper = facts.clone();
    Ok(Drill::new(scope, args.sample(), facts))
}

/// Walks over all objects. A damaged snapshot ends the walk; the report has what was found before.
async fn walk(
    args: &Args,
    mut drill: Drill,
    sources: Vec<(String, Box<dyn Objects>)>,
    (clock, wait): (&dyn Clock, Duration),
    seeds: &dyn Seeds,
    report: &mut Report,
    mut list: Option<&mut UnreadableList>,
) -> Result<(), Problem> {
    let mut progress = Progress::of(&args.snapshot.display().to_string());
    let mut read = 0_u64;
    let mut ended = Ok(());
    for (root, mut objects) in sources {
        let before = read;
        ended = loop {
            match objects.next_page().await {
                Ok(Some(page)) => {
                    test(&mut drill, &root, &page, (clock, wait), seeds, list.as_deref_mut())
                        .await?;
                    read = read.saturating_add(u64::try_from(page.len()).unwrap_or(u64::MAX));
                    progress.at(read, objects.count());
                }
                Ok(None) => break Ok(()),
                Err(problem) => break Err(problem),
            }
        };
        if ended.is_err() {
            break;
        }
        if args.resource.is_none() {
            check_prefix(&objects.name(), &root, read.saturating_sub(before))?;
        }
    }
    drop(progress);
    let results = if ended.is_ok() { drill.end()? } else { drill.so_far() };
    report.verdict =
        if results.totals.unreadable == 0 { Verdict::Readable } else { Verdict::Unreadable };
    report.totals = results.totals;
    report.groups = results.groups;
    report.versions = results.versions;
    report.failures = results.failures;
    ended
}

/// Unwraps the new seeds of a page of objects, and then tests the objects.
async fn test(
    drill: &mut Drill,
    root: &str,
    page: &[Object],
    (clock, wait): (&dyn Clock, Duration),
    seeds: &dyn Seeds,
    mut list: Option<&mut UnreadableList>,
) -> Result<(), Problem> {
    let stored: Vec<_> = page.iter().map(|object| Stored::of(&object.value)).collect();
    let mut answers = stream::iter(drill.new_seeds(&stored))
        .map(|(id, envelope)| async move {
            (id, envelope, patiently(clock, wait, || seeds.unwrap(envelope)).await)
        })
        .buffer_unordered(CONCURRENCY);
    while let Some((id, envelope, answer)) = answers.next().await {
        drill.learn(id, envelope, answer)?;
    }
    drop(answers);
    for (object, stored) in page.iter().zip(&stored) {
        let reason = drill.add(root, object, stored)?;
        if let (Some(list), Some(reason)) = (list.as_deref_mut(), reason) {
            list.add(reason, &object.key).await?;
        }
    }
    Ok(())
}

/// Asks again while the keeper is away, until `wait` has passed.
async fn patiently<T, F: Future<Output = Result<T, KmsError>> + Send>(
    clock: &dyn Clock,
    wait: Duration,
    ask: impl Fn() -> F + Send,
) -> Result<T, KmsError> {
    let end = clock.now().after(wait);
    let mut pause = FIRST_PAUSE;
    loop {
        match ask().await {
            Err(error) if error.code().is_retryable() && clock.now() < end => {
                clock.sleep(pause.min(end.since(clock.now()))).await;
                pause = pause.saturating_mul(2).min(LONGEST_PAUSE);
            }
            other => return other,
        }
    }
}

fn rfc3339(time: UnixTime) -> String {
    let since = time.since(UnixTime::default());
    humantime::format_rfc3339_seconds(std::time::SystemTime::UNIX_EPOCH + since).to_string()
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

    use vault_kube_kms::domain::{error::Code, time::Monotonic};

    use super::*;

    /// A clock that a pause moves on.
    #[derive(Debug, Default)]
    struct TestClock(AtomicU64);

    #[async_trait::async_trait]
    impl Clock for TestClock {
        fn now(&self) -> Monotonic {
            Monotonic::at(Duration::from_millis(self.0.load(Ordering::Relaxed)))
        }

        fn wall(&self) -> UnixTime {
            UnixTime::default()
        }

        fn jitter(&self) -> f64 {
            0.0
        }

        async fn sleep(&self, wait: Duration) {
            let millis = u64::try_from(wait.as_millis()).unwrap().max(1);
            self.0.fetch_add(millis, Ordering::Relaxed);
        }
    }

    #[derive(clap::Parser)]
    struct Program {
        #[command(flatten)]
        args: Args,
    }

    fn args(flags: &[&str]) -> Result<Args, clap::Error> {
        let words = ["drill", "--snapshot=db"].iter().chain(flags);
        <Program as clap::Parser>::try_parse_from(words).map(|program| program.args)
    }

    #[test]
    fn a_sample_has_objects() {
        assert_eq!(args(&[]).unwrap().sample(), Sample::Newest(10));
        assert_eq!(args(&["--sample=1"]).unwrap().sample(), Sample::Newest(1));
        assert!(args(&["--sample=0"]).is_err(), "it would open nothing and say readable");
    }

    /// Text, page and JSON say the same.
    #[test]
    fn each_form_names_what_was_left_out() {
        let facts =
            Facts { name: "db".to_owned(), size: 1, sha256: String::new(), digest: Digest::Fits };
        let everything = "Everything is readable: 1 of 1 seeds unwrapped, 2 of 2 objects opened.";
        let tested = "Everything that was tested is readable: 1 of 1 seeds unwrapped, 2 of 2 objects opened.";
        let only = format!("{tested} Only objects of secrets were tested.");
        let prefixes = "--etcd-prefix=kubernetes.io,openshift.io";
        for (flags, other, result, limit) in [
            (
                &["--all"][..],
                0,
                everything,
                "Only keys below /registry/ were read. Not seen: other prefixes",
            ),
            (&["--all"], 1, tested, "1 objects are of other providers"),
            (
                &["--all", "--resource=secrets"],
                0,
                only.as_str(),
                "Not seen: other resources, other prefixes",
            ),
            (
                &["--all", prefixes],
                0,
                everything,
                "below /kubernetes.io/ and /openshift.io/ were read.",
            ),
        ] {
            let totals = Totals {
                tested: 2,
                opened: 2,
                seeds: 1,
                seeds_unwrapped: 1,
                other,
                ..Totals::default()
            };
            let report = Report {
                verdict: Verdict::Readable,
                totals,
                ..empty_report(&args(flags).unwrap(), &facts, UnixTime::default())
            };
            let forms =
                [text::text(&report), page::page(&report).into_string(), json(&report).unwrap()];
            for form in forms {
                assert!(form.contains(result) && form.contains(limit), "{flags:?}: {form}");
            }
        }
    }

    /// No object has a seed.
    #[derive(Debug)]
    struct NoSeeds;

    #[async_trait::async_trait]
    impl Seeds for NoSeeds {
        async fn unwrap(
            &self,
            _: &crate::domain::envelope::Envelope<'_>,
        ) -> Result<vault_kube_kms::domain::secret::Plaintext, KmsError> {
            Err(KmsError::new(Code::KeyMissing, "cause", "remedy"))
        }
    }

    #[tokio::test]
    async fn each_prefix_has_objects() {
        use crate::adapters::snapshot::tests::database;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("db");
        let damaged = ("/kubernetes.io/secrets/a/b", Some(&b"\xff"[..]));
        std::fs::write(&path, database(4096, 4, &[damaged])).unwrap();
        let file = SnapshotFile::open(&path).await.unwrap();
        for (flags, code) in [
            (&["--etcd-prefix=kubernetes.io"][..], None),
            (&["--etcd-prefix=kubernetes.io,openshft.io"], Some("no-objects")),
            (&["--etcd-prefix=kubernetes.io,openshift.io", "--resource=secrets"], None),
        ] {
            let args = args(flags).unwrap();
            let mut report = empty_report(&args, file.facts(), UnixTime::default());
            let drill = Drill::new(Scope::Plugin(None), args.sample(), KeeperFacts::default());
            let clock = TestClock::default();
            let sources = sources(&args, &file, &mut report).await.unwrap();
            let patience: (&dyn Clock, _) = (&clock, Duration::ZERO);
            let walked = walk(&args, drill, sources, patience, &NoSeeds, &mut report, None).await;
            assert_eq!(walked.err().map(|problem| problem.code), code, "{flags:?}");
        }
    }

    /// Asks a keeper that refuses in this way until call `well`. Returns the calls and the time.
    async fn asked(code: Code, well: u32) -> (bool, u32, u64) {
        let (clock, calls) = (TestClock::default(), AtomicU32::new(0));
        let answer = patiently(&clock, Duration::from_secs(30), || async {
            if calls.fetch_add(1, Ordering::Relaxed) + 1 >= well {
                return Ok(());
            }
            Err(KmsError::new(code, "cause", "remedy"))
        })
        .await;
        (answer.is_ok(), calls.into_inner(), clock.0.into_inner())
    }

    #[tokio::test]
    async fn asks_again_during_an_outage_and_not_for_ever() {
        assert_eq!(asked(Code::KeeperSealed, 3).await, (true, 3, 750));
        let (is_ok, calls, millis) = asked(Code::KeeperUnreachable, 1000).await;
        assert!(!is_ok && calls < 20 && millis == 30_000, "{calls} calls in {millis} ms");
        assert_eq!(asked(Code::VersionRetired, 2).await, (false, 1, 0));
    }
}
