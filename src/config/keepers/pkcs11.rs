//! Registers the keeper on a PKCS#11 token (feature `pkcs11`): its flags, settings and commands.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use async_trait::async_trait;
use tokio::{runtime::Builder, time::timeout};

use super::{KeeperKind, KeeperSettings, Opened, Surroundings};
use crate::{
    adapters::{
        pkcs11::{
            keeper::Pkcs11Keeper,
            operator::Operator,
            settings::{KeyLabel, Pkcs11Settings, TokenName},
        },
        system::{clock::SystemClock, place::mode_of, sandbox::Needs, watched_file::WatchedFile},
    },
    config::{
        commands::{Command, KeeperCommand, Work},
        flags::{
            Group,
            Takes::{Value, Values},
            flag,
        },
        reading::Reading,
    },
    domain::{
        error::{Code, KmsError},
        key::KekVersion,
        time::CALL_BUDGET,
    },
    ports::{
        file::TextFile,
        finding::{Area, Finding, Report},
    },
};

/// Limits the file of the PIN, in bytes.
const PIN_MAX: u64 = 1_024;

/// Limits `--pkcs11-sessions`.
const SESSIONS_MAX: u32 = 64;

/// Lists the flags of the keeper.
const GROUPS: &[Group] = &[(
    "PKCS#11 token",
    &[
        flag(
            "pkcs11-module",
            Value("FILE"),
            "",
            "The PKCS#11 library of the token (required for --keeper=pkcs11)",
        ),
        flag(
            "pkcs11-token-label",
            Value("LABEL"),
            "",
            "Label of the token; give this or --pkcs11-token-serial",
        ),
        flag("pkcs11-token-serial", Value("SERIAL"), "", "Serial number of the token"),
        flag(
            "pkcs11-key-label",
            Value("LABEL"),
            "kube-kms",
            "Label that all versions of the key share",
        ),
        flag(
            "pkcs11-pin-file",
            Value("FILE"),
            "",
            "File of the user PIN; a change is noticed (required for --keeper=pkcs11)",
        ),
        flag(
            "pkcs11-sessions",
            Value("N"),
            "8",
            "Limit of sessions with the token, 1 to 64, and of calls at once",
        ),
        flag(
            "pkcs11-needs",
            Values("PLACE"),
            "",
            "File or directory (a path) or server (HOST:PORT) that the library uses while it runs",
        ),
    ],
)];

/// Lists the commands of the keeper.
const COMMANDS: &[KeeperCommand] = &[
    KeeperCommand {
        command: Command {
            words: "pkcs11 init",
            usage: "pkcs11 init [FLAGS]",
            help: "make the key on the token",
        },
        read: init,
    },
    KeeperCommand {
        command: Command {
            words: "pkcs11 rotate",
            usage: "pkcs11 rotate [FLAGS]",
            help: "add a version to it",
        },
        read: rotate,
    },
];

/// Is the keeper of `--keeper=pkcs11`.
pub const PKCS11: KeeperKind = KeeperKind::new("pkcs11", GROUPS, read).with_commands(COMMANDS);

fn read(reading: &mut Reading<'_>) -> Option<Arc<dyn KeeperSettings>> {
    let (token, needs) = (settings(reading), places(reading));
    Some(Arc::new(Settings { token: token?, needs: needs? }))
}

/// Names something that the library uses under the sandbox.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Place {
    Path(PathBuf),
    Server(String, u16),
}

impl Place {
    fn parse(text: &str) -> Result<Self, String> {
        if text.starts_with('/') {
            return Ok(Self::Path(PathBuf::from(text)));
        }
        let server =
            text.rsplit_once(':').and_then(|(host, port)| Some((host, port.parse().ok()?)));
        match server {
            Some((host, port)) if !host.is_empty() => Ok(Self::Server(host.to_owned(), port)),
            _ => Err(format!("{text:?} is neither an absolute path nor of the form HOST:PORT")),
        }
    }
}

fn places(reading: &mut Reading<'_>) -> Option<Vec<Place>> {
    let (mut places, mut all_good) = (Vec::new(), true);
    for text in reading.texts("pkcs11-needs").iter().filter(|text| !text.is_empty()) {
        match Place::parse(text) {
            Ok(place) => places.push(place),
            Err(problem) => {
                reading.wrong("pkcs11-needs", problem);
                all_good = false;
            }
        }
    }
    all_good.then_some(places)
}

/// Reads the settings that name the library, the token and the key.
fn settings(reading: &mut Reading<'_>) -> Option<Pkcs11Settings> {
    let module = reading.required("pkcs11-module", |text| Ok(PathBuf::from(text)));
    let token = token(reading);
    let key_label = reading.parsed("pkcs11-key-label", KeyLabel::parse);
    let pin_file = reading.required("pkcs11-pin-file", |text| Ok(PathBuf::from(text)));
    let sessions = reading.parsed("pkcs11-sessions", |text| {
        let number = text.parse().ok().filter(|number| (1..=SESSIONS_MAX).contains(number));
        number.ok_or_else(|| format!("{text:?} is not a number from 1 to {SESSIONS_MAX}"))
    });
    Some(Pkcs11Settings {
        module: module?,
        token: token?,
        key_label: key_label?,
        pin_file: pin_file?,
        sessions: sessions?,
    })
}

fn token(reading: &mut Reading<'_>) -> Option<TokenName> {
    let given = |name| reading.given(name).is_some();
    match (given("pkcs11-token-label"), given("pkcs11-token-serial")) {
        (true, false) => reading.parsed("pkcs11-token-label", TokenName::label),
        (false, true) => reading.parsed("pkcs11-token-serial", TokenName::serial),
        (true, true) => {
            let problem = "the token is also named by --pkcs11-token-label; give one of them";
            reading.wrong("pkcs11-token-serial", problem);
            None
        }
        (false, false) => {
            let problem = "it is required: the label of the token; or give --pkcs11-token-serial";
            reading.wrong("pkcs11-token-label", problem);
            None
        }
    }
}

/// Holds the settings of the keeper.
#[derive(Clone, Debug)]
struct Settings {
    token: Pkcs11Settings,
    needs: Vec<Place>,
}

#[async_trait]
impl KeeperSettings for Settings {
    fn connection(&self) -> String {
        format!("pkcs11 key {} of the {}", self.token.key_label, self.token.token)
    }

    fn needs(&self, needs: &mut Needs) {
        needs.read.push(self.token.pin_file.clone());
        for place in &self.needs {
            match place {
                Place::Path(path) => needs.trees.push(path.clone()),
                Place::Server(host, port) => needs.connect(host, *port),
            }
        }
    }

    async fn check_files(&self, report: &mut Report) {
        let (module, pin) = (&self.token.module, &self.token.pin_file);
        report.add(Finding::writable_by_owner_only("pkcs11-module", module, mode_of(module)));
        let read = timeout(CALL_BUDGET, pin_file(pin).read()).await;
        report.add(match (read, mode_of(pin)) {
            (Ok(Ok(_)), Some(mode)) if mode & 0o077 != 0 => Finding::warn(
                Area::Files,
                format!(
                    "--pkcs11-pin-file: group or others can use {} ({mode:04o})",
                    pin.display()
                ),
                "chmod it to 0600",
            ),
            (Ok(Ok(_)), _) => {
                Finding::pass(Area::Files, format!("--pkcs11-pin-file: {} is read", pin.display()))
            }
            (Ok(Err(why)), _) => unreadable(pin, &why),
            (Err(_elapsed), _) => unreadable(pin, "is not read in time"),
        });
    }

    fn open(&self, with: &Surroundings) -> Opened {
        let pin = with.watched_file(&self.token.pin_file, PIN_MAX);
        Ok(Arc::new(Pkcs11Keeper::new(&self.token, pin, Arc::clone(&with.clock))?))
    }
}

fn unreadable(pin: &Path, why: &str) -> Finding {
    let text = format!("--pkcs11-pin-file: {} {why}", pin.display());
    Finding::fail(Area::Files, text, "write the user PIN alone into that file")
}

/// Returns the file of the PIN, which does not follow SIGHUP.
fn pin_file(path: &Path) -> WatchedFile {
    WatchedFile::new(path.to_owned(), PIN_MAX)
}

fn init(reading: &mut Reading<'_>) -> Option<Work> {
    let settings = settings(reading)?;
    Some(Box::new(move || {
        let version = run(&settings, async |operator| operator.init().await)?;
        let Pkcs11Settings { token, key_label, .. } = settings;
        Ok(format!("{token}: key {key_label} made with version {version}; back the token up"))
    }))
}

fn rotate(reading: &mut Reading<'_>) -> Option<Work> {
    let settings = settings(reading)?;
    Some(Box::new(move || {
        let version = run(&settings, async |operator| operator.rotate().await)?;
        let Pkcs11Settings { token, key_label, .. } = settings;
        Ok(format!(
            "{token}: version {version} added to key {key_label}; it writes after --rotation-delay"
        ))
    }))
}

/// Runs `work` on a runtime of its own.
fn run(
    settings: &Pkcs11Settings,
    work: impl AsyncFnOnce(&Operator) -> Result<KekVersion, KmsError>,
) -> Result<KekVersion, KmsError> {
    let runtime = Builder::new_current_thread().enable_all().build().map_err(|error| {
        let cause = format!("no runtime: {error}");
        KmsError::new(Code::Internal, cause, "raise the limits of this process")
    })?;
    let pin = Arc::new(pin_file(&settings.pin_file));
    let operator = Operator::new(settings, pin, Arc::new(SystemClock::new()))?;
    let ended = runtime.block_on(work(&operator));
    // Do not wait for a library that hangs.
    runtime.shutdown_background();
    ended
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{settings::Settings as All, sources::Sources};

    const GOOD: [&str; 4] = [
        "--keeper=pkcs11",
        "--pkcs11-module=/m.so",
        "--pkcs11-token-label=kms",
        "--pkcs11-pin-file=/p/pin",
    ];

    fn read(more: &[&str]) -> Result<All, String> {
        let args: Vec<_> = GOOD.iter().chain(more).map(|arg| (*arg).to_owned()).collect();
        All::read(&Sources::collect(&args, [])).map_err(|errors| format!("{errors:?}"))
    }

    #[test]
    fn names_what_the_sandbox_must_allow() {
        let more = ["--pkcs11-needs=/var/lib/tokens,10.0.0.1:1792", "--pkcs11-needs=hsm:1792"];
        let mut needs = Needs::default();
        read(&more).unwrap().keeper.needs(&mut needs);
        assert_eq!(needs.read, [Path::new("/p/pin")]);
        assert_eq!(needs.trees, [Path::new("/var/lib/tokens")]);
        assert!(needs.names && needs.ports == [1792, 1792]);
    }

    #[test]
    fn names_the_flag_that_is_wrong() {
        for (more, flag) in [
            ("--pkcs11-token-serial=1", "pkcs11-token-serial"),
            ("--pkcs11-token-label=", "pkcs11-token-label"),
            ("--pkcs11-sessions=0", "pkcs11-sessions"),
            ("--pkcs11-sessions=65", "pkcs11-sessions"),
            ("--pkcs11-needs=tokens", "pkcs11-needs"),
            ("--pkcs11-pin-file=", "pkcs11-pin-file"),
            ("--pkcs11-module=", "pkcs11-module"),
        ] {
            let told = read(&[more]).unwrap_err();
            assert!(told.contains(&format!("flag: {flag:?}")), "{more}: {told}");
        }
    }

    #[test]
    fn names_a_library_that_cannot_be_loaded() {
        let with = Surroundings {
            clock: Arc::new(SystemClock::new()),
            telemetry: Arc::new(crate::ports::telemetry::MockTelemetry::new()),
            reread: tokio::sync::watch::channel(()).1,
            serves: true,
        };
        let told = read(&[]).unwrap().keeper.open(&with).unwrap_err().to_string();
        assert!(told.contains("/m.so") && told.contains("--pkcs11-module"), "{told}");
    }
}
