//! Measures the provider beside other KMS v2 plugins in one run, and writes the tables of
//! `docs/comparison.md`.

mod keeper;

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
    time::Duration,
};

use keeper::Keeper;
use serde::Deserialize;

use crate::{
    release,
    run::{Failure, output, root, run, say, target},
    tools,
};

/// The document, and the lines between which the tables are.
const DOCUMENT: &str = "docs/comparison.md";
const BEGIN: &str = "<!-- The next lines are made by cargo xtask compare. -->\n";
const END: &str = "<!-- The lines before this one are made by cargo xtask compare. -->\n";

/// How often each plugin is measured. The plugins take turns, so that a drift of the machine changes
/// all of them alike. The tables have the medians.
const ROUNDS: usize = 3;

/// How many seeds a storm has.
const STORM: &str = "1000";

/// How long the keeper does not answer.
const OUTAGE: Duration = Duration::from_secs(30);

/// How long a plugin may take to work after its start, and after the outage, in seconds.
const START_MAX: &str = "30";
const OUTAGE_MAX: &str = "300";

/// A plugin: its name with its version, and its command.
pub(crate) struct Plugin {
    name: String,
    pub(crate) command: String,
}

/// The report of `vault-kube-kmsctl conformance --output=json`.
#[derive(Deserialize)]
struct Report {
    figures: Figures,
    rules: Vec<Rule>,
}

#[derive(Deserialize)]
struct Figures {
    ready_ms: f64,
    status: Spread,
    encrypt: Spread,
    decrypt: Spread,
    storm: Storm,
}

#[derive(Deserialize)]
struct Spread {
    p50_ms: f64,
    p99_ms: f64,
}

#[derive(Deserialize)]
struct Storm {
    p99_ms: f64,
    failed: u32,
    seconds: f64,
}

#[derive(Deserialize)]
struct Rule {
    id: String,
    severity: String,
    verdict: String,
}

/// What was measured of one plugin: the figures of each round by the title of their line, and the
/// rules that it breaks.
#[derive(Default)]
struct Measured {
    figures: BTreeMap<&'static str, Vec<f64>>,
    /// The ids of the broken rules, each with its severity.
    broken: Vec<(String, String)>,
    held: usize,
}

/// The lines of the table: title, and decimals.
const LINES: &[(&str, usize)] = &[
    ("from the start to the first round trip, ms", 0),
    ("Status p50, ms", 2),
    ("Status p99, ms", 2),
    ("Encrypt p50, ms", 2),
    ("Encrypt p99, ms", 2),
    ("Decrypt p50, ms", 2),
    ("Decrypt p99, ms", 2),
    ("storm of 1,000 unwraps, 64 wide, s", 2),
    ("the same, p99 of one unwrap, ms", 0),
    ("the same, failed", 0),
    ("memory after it, MiB", 1),
    ("the most memory, MiB", 1),
    ("from the end of an outage of 30 s to the first round trip, s", 1),
];

/// Runs the comparison. `flags` are pairs of `--peer NAME --command COMMAND`, and `--ours PROGRAM`
/// for another build of the provider.
pub(crate) fn all(flags: &[&str]) -> Result<(), Failure> {
    let (peers, ours) = read(flags)?;
    let bao = tools::openbao()?.ok_or("a comparison needs OpenBao")?;
    let ours = ours.map_or_else(release::binary, Ok)?;
    let kmsctl = client()?;
    let place = tempfile::Builder::new().prefix("vkk-compare-").tempdir()?;
    let keeper = Keeper::start(&bao, place.path(), &ours)?;
    let version = output(Command::new(&ours).arg("--version"))?;
    let mut plugins = vec![Plugin {
        name: version.split_whitespace().take(2).collect::<Vec<_>>().join(" "),
        command: keeper.command(&ours),
    }];
    plugins.extend(peers);
    let mut measured: Vec<_> = plugins.iter().map(|_| Measured::default()).collect();
    for round in 1..=ROUNDS {
        for (plugin, measured) in plugins.iter().zip(&mut measured) {
            say(&format!("round {round}: {}", plugin.name));
            measured.round(&keeper, plugin, &kmsctl)?;
        }
    }
    for (plugin, measured) in plugins.iter().zip(&mut measured) {
        say(&format!("an outage: {}", plugin.name));
        measured.outage(&keeper, plugin, &kmsctl)?;
    }
    write(&tables(&plugins, &measured))
}

fn read(flags: &[&str]) -> Result<(Vec<Plugin>, Option<PathBuf>), Failure> {
    let (mut peers, mut ours) = (Vec::new(), None);
    let mut flags = flags.iter();
    while let Some(flag) = flags.next() {
        let value = flags.next().ok_or_else(|| format!("{flag} needs a value"))?;
        match *flag {
            "--ours" => ours = Some(fs::canonicalize(value)?),
            "--peer" => {
                let (Some(&"--command"), Some(command)) = (flags.next(), flags.next()) else {
                    return Err("--peer NAME needs --command COMMAND after it".into());
                };
                peers.push(Plugin { name: (*value).into(), command: (*command).into() });
            }
            _ => return Err(format!("compare has no flag {flag}").into()),
        }
    }
    Ok((peers, ours))
}

/// Builds the program that calls the plugins, optimised.
fn client() -> Result<PathBuf, Failure> {
    say("an optimised build of vault-kube-kmsctl");
    let mut cargo = Command::new(env!("CARGO"));
    cargo.current_dir(root()).args(["build", "--locked", "--quiet", "--release"]);
    // It only makes the calls. The slow last step of a release changes nothing for them.
    cargo.env("CARGO_PROFILE_RELEASE_LTO", "off");
    cargo.env("CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "16");
    run(cargo.args(["--package", "vault-kube-kmsctl"]))?;
    Ok(target().join("release/vault-kube-kmsctl"))
}

/// Runs the client. Exit code 1 is a finding, and not a failure.
fn conformance(kmsctl: &Path, socket: &str, flags: &[&str]) -> Result<Report, Failure> {
    let mut client = Command::new(kmsctl);
    client.args(["conformance", socket, "--output=json"]).args(flags);
    let done = client.stderr(Stdio::inherit()).output()?;
    serde_json::from_slice(&done.stdout)
        .map_err(|error| format!("{client:?} gave no report ({}): {error}", done.status).into())
}

impl Measured {
    fn add(&mut self, title: &'static str, figure: f64) {
        self.figures.entry(title).or_default().push(figure);
    }

    fn round(&mut self, keeper: &Keeper, plugin: &Plugin, kmsctl: &Path) -> Result<(), Failure> {
        let (running, socket) = keeper.serve(plugin)?;
        let report = conformance(kmsctl, &socket, &["--wait", START_MAX, "--storm", STORM])?;
        let Figures { ready_ms, status, encrypt, decrypt, storm } = report.figures;
        self.add("from the start to the first round trip, ms", ready_ms);
        self.add("Status p50, ms", status.p50_ms);
        self.add("Status p99, ms", status.p99_ms);
        self.add("Encrypt p50, ms", encrypt.p50_ms);
        self.add("Encrypt p99, ms", encrypt.p99_ms);
        self.add("Decrypt p50, ms", decrypt.p50_ms);
        self.add("Decrypt p99, ms", decrypt.p99_ms);
        self.add("storm of 1,000 unwraps, 64 wide, s", storm.seconds);
        self.add("the same, p99 of one unwrap, ms", storm.p99_ms);
        self.add("the same, failed", storm.failed.into());
        self.add("memory after it, MiB", running.memory("VmRSS")?);
        self.add("the most memory, MiB", running.memory("VmHWM")?);
        self.held = report.rules.iter().filter(|rule| rule.verdict == "holds").count();
        let broken = report.rules.into_iter().filter(|rule| rule.verdict == "broken");
        self.broken = broken.map(|rule| (rule.id, rule.severity)).collect();
        Ok(())
    }

    /// Stops the keeper for some time, while a client tries a round trip again and again.
    fn outage(&mut self, keeper: &Keeper, plugin: &Plugin, kmsctl: &Path) -> Result<(), Failure> {
        let (running, socket) = keeper.serve(plugin)?;
        conformance(kmsctl, &socket, &["--wait", START_MAX, "--storm", "1"])?;
        keeper.process.signal("STOP")?;
        let client = thread::scope(|scope| {
            let client = scope.spawn(|| {
                conformance(kmsctl, &socket, &["--wait", OUTAGE_MAX, "--storm", "1"])
                    .map_err(|error| error.to_string())
            });
            thread::sleep(OUTAGE);
            let resumed = keeper.process.signal("CONT").map_err(|error| error.to_string());
            client
                .join()
                .map_err(|_panic| "the client panicked".to_owned())?
                .and_then(|report| resumed.map(|()| report))
        })?;
        drop(running);
        let healed = client.figures.ready_ms / 1000.0 - OUTAGE.as_secs_f64();
        // A plugin that needs no keeper answers before the end of the outage.
        self.add("from the end of an outage of 30 s to the first round trip, s", healed);
        Ok(())
    }

    fn median(&self, title: &str) -> Option<f64> {
        let mut all = self.figures.get(title)?.clone();
        all.sort_by(f64::total_cmp);
        all.get(all.len() / 2).copied()
    }
}

fn tables(plugins: &[Plugin], measured: &[Measured]) -> String {
    let mut text = String::new();
    let names: Vec<_> = plugins.iter().map(|plugin| plugin.name.as_str()).collect();
    let _infallible = writeln!(text, "\n| | {} |", names.join(" | "));
    let _infallible = writeln!(text, "| --- |{}", " --- |".repeat(names.len()));
    for (title, decimals) in LINES {
        let first = measured.first().and_then(|ours| ours.median(title));
        let cells =
            measured.iter().enumerate().map(|(number, one)| match (one.median(title), first) {
                (Some(figure), _) if figure < 0.0 => "needs no keeper".to_owned(),
                (Some(figure), Some(first))
                    if number > 0 && first > 0.0 && title.contains("p50") =>
                {
                    format!("{figure:.decimals$} ({:.2} times)", figure / first)
                }
                (Some(figure), _) => format!("{figure:.decimals$}"),
                (None, _) => "not measured".to_owned(),
            });
        let _infallible = writeln!(text, "| {title} | {} |", cells.collect::<Vec<_>>().join(" | "));
    }
    let cells = measured.iter().map(|one| {
        let of = |severity: &str| one.broken.iter().filter(|(_, of)| of == severity).count();
        format!(
            "{} rules hold; broken: {} errors, {} warnings, {} info",
            one.held,
            of("error"),
            of("warning"),
            of("info")
        )
    });
    let _infallible =
        writeln!(text, "| conformance | {} |\n", cells.collect::<Vec<_>>().join(" | "));
    for (plugin, one) in plugins.iter().zip(measured).filter(|(_, one)| !one.broken.is_empty()) {
        let _infallible = writeln!(text, "Rules that {} breaks:\n", plugin.name);
        for (id, severity) in &one.broken {
            let _infallible = writeln!(text, "- {severity}: `{id}`");
        }
        text.push('\n');
    }
    text
}

/// Puts the tables between their marks in the document.
fn write(tables: &str) -> Result<(), Failure> {
    let file = root().join(DOCUMENT);
    let text = fs::read_to_string(&file)?;
    let (before, rest) = text.split_once(BEGIN).ok_or("the document has no first mark")?;
    let (_, after) = rest.split_once(END).ok_or("the document has no last mark")?;
    fs::write(&file, format!("{before}{BEGIN}{tables}{END}{after}"))?;
    say(&format!("wrote {DOCUMENT}:\n{tables}"));
    Ok(())
}
