//! Measures the provider beside other KMS v2 plugins in one run, and writes the tables of
//! `docs/comparison.md`.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    fs,
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::Duration,
};

use serde::Deserialize;

use crate::{
    release,
    run::{Failure, can_run, output, root, run, say, target},
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

/// How often a process is looked at until it has started or ended, and the wait between two looks.
const PROCESS_TRIES: usize = 300;
const PROCESS_WAIT: Duration = Duration::from_millis(100);

/// The names at the keeper.
const KEY: &str = "kubernetes";
const ROLE: &str = "kms";

/// A plugin: its name with its version, and its command.
struct Plugin {
    name: String,
    command: String,
}

/// A process, which ends with this value.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        drop(self.signal("TERM"));
        for _ in 0..PROCESS_TRIES {
            if let Ok(Some(_status)) = self.0.try_wait() {
                return;
            }
            thread::sleep(PROCESS_WAIT);
        }
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

impl Running {
    /// Sends a signal by its name.
    fn signal(&self, name: &str) -> Result<(), Failure> {
        run(Command::new("kill").args(["-s", name, &self.0.id().to_string()]))
    }

    /// Returns a size of its memory in MiB: `VmRSS`, or `VmHWM` for the largest so far.
    fn memory(&self, kind: &str) -> Result<f64, Failure> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.0.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix(kind)?.strip_prefix(':'));
        let number = line.and_then(|line| line.split_whitespace().next()).ok_or(kind)?;
        Ok(number.parse::<f64>()? / 1024.0)
    }
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

/// An OpenBao in memory with the Transit engine, a key, and a role that may use it.
struct Keeper {
    process: Running,
    bao: PathBuf,
    home: PathBuf,
    address: String,
    root_token: String,
    role_id: String,
    /// A token with the policy of the role, for peers.
    token: String,
}

impl Keeper {
    fn start(bao: &Path, home: &Path, ours: &Path) -> Result<Self, Failure> {
        let free = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        let (address, root_token) = (format!("https://{free}"), "compare".to_owned());
        let mut server = Command::new(bao);
        server.args(["server", "-dev", "-dev-no-store-token", "-dev-tls"]).env("HOME", home);
        server.arg(format!("-dev-tls-cert-dir={}", home.display()));
        server.arg(format!("-dev-listen-address={free}"));
        server.arg(format!("-dev-root-token-id={root_token}"));
        let process = Running(server.stdout(Stdio::null()).stderr(Stdio::null()).spawn()?);
        let (role_id, token) = (String::new(), String::new());
        let bao = bao.to_owned();
        let home = home.to_owned();
        let mut keeper = Self { process, bao, home, address, root_token, role_id, token };
        for _ in 0..PROCESS_TRIES {
            if can_run(&mut keeper.bao(&["status"])) {
                keeper.configure(ours)?;
                return Ok(keeper);
            }
            thread::sleep(PROCESS_WAIT);
        }
        Err("OpenBao does not start".into())
    }

    fn configure(&mut self, ours: &Path) -> Result<(), Failure> {
        let policy = self.home.join("policy.hcl");
        let mut told = Command::new(ours);
        fs::write(
            &policy,
            output(told.arg("policy").arg(format!("--vault-key-path=transit/keys/{KEY}")))?,
        )?;
        let (policy, role) = (policy.display().to_string(), format!("auth/approle/role/{ROLE}"));
        for args in [
            &["secrets", "enable", "transit"][..],
            &["write", "-force", &format!("transit/keys/{KEY}")],
            &["policy", "write", ROLE, &policy],
            &["auth", "enable", "approle"],
            &["write", &role, &format!("token_policies={ROLE}"), "token_ttl=1h"],
        ] {
            output(&mut self.bao(args))?;
        }
        let (id, secret) = (format!("{role}/role-id"), format!("{role}/secret-id"));
        let ask = |args: &[&str]| Ok::<_, Failure>(output(&mut self.bao(args))?.trim().to_owned());
        let role_id = ask(&["read", "-field=role_id", &id])?;
        let secret_id = ask(&["write", "-force", "-field=secret_id", &secret])?;
        let token = ask(&[
            "token",
            "create",
            "-orphan",
            "-period=1h",
            "-field=token",
            &format!("-policy={ROLE}"),
        ])?;
        fs::write(self.home.join("secret-id"), secret_id)?;
        (self.role_id, self.token) = (role_id, token);
        Ok(())
    }

    /// Returns a command of the administrator.
    fn bao(&self, args: &[&str]) -> Command {
        let mut bao = Command::new(&self.bao);
        bao.args(args).env("BAO_ADDR", &self.address).env("BAO_TOKEN", &self.root_token);
        bao.env("BAO_CACERT", self.ca_file()).env("HOME", &self.home);
        bao
    }

    fn ca_file(&self) -> PathBuf {
        self.home.join("vault-ca.pem")
    }

    /// Returns the command of the provider.
    fn command(&self, ours: &Path) -> String {
        format!(
            "{} --listen-address=\"$SOCKET\" --vault-address=\"$VAULT_ADDR\" --tls-ca-file=\"$VAULT_CACERT\" \
             --vault-key-path=transit/keys/{KEY} --approle-role-id={} --approle-secret-id-path={} \
             --metrics-port=0 --health-port=0",
            ours.display(),
            self.role_id,
            self.home.join("secret-id").display()
        )
    }

    /// Starts a plugin on a new socket.
    fn serve(&self, plugin: &Plugin) -> Result<(Running, String), Failure> {
        let path = self.home.join("kms.sock");
        drop(fs::remove_file(&path));
        let socket = format!("unix://{}", path.display());
        let mut shell = Command::new("sh");
        // The shell becomes the plugin, so that its process id is the one to measure.
        shell.arg("-c").arg(format!("exec {}", plugin.command));
        shell
            .env("SOCKET", &socket)
            .env("VAULT_ADDR", &self.address)
            .env("VAULT_TOKEN", &self.token);
        shell.env("VAULT_CACERT", self.ca_file()).current_dir(root());
        let log = fs::File::create(self.home.join("plugin.log"))?;
        shell.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        Ok((Running(shell.spawn()?), socket))
    }
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
            "{} rules hold; broken: {} errors, {} warnings, {} infos",
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
