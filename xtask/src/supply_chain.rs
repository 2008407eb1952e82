//! Checks the dependencies: licences, sources and known weaknesses.

use std::{
    collections::BTreeSet,
    fs::{self, File},
    path::{Path, PathBuf},
    process::Command,
    time::SystemTime,
};

use crate::{
    run::{Failure, can_run, output, root, run, say, target},
    tools,
};

const VERSION: &str = "0.20.2";

/// The facts of `RustSec`'s advisories, for machines that cannot fetch them: `crates/` as in their
/// repository, in `TAKEN` the day of the newest advisory that was seen, such as `2026-11-25`, and in
/// `CRATES` the names of the crates that were looked up.
const SNAPSHOT: &str = "supply-chain/advisory-db";

/// The age, in days, from which a snapshot is too old for a release.
const OLD_DAYS: u64 = 90;

/// The folder that cargo-deny searches in its folder of databases: the name and a hash of the
/// address of `RustSec`'s database.
const DATABASE: &str = "advisory-db-3157b0e258782691";

/// Runs all checks of deny.toml.
pub(crate) fn deny() -> Result<(), Failure> {
    run(cargo_deny()?.args(["check", "bans", "licenses", "sources"]))?;
    a_snapshot_counts()?;
    advisories(false)
}

/// Checks for known weaknesses against the current database, or against the snapshot when the
/// database cannot be fetched. Without either, `must` decides whether that is an error.
pub(crate) fn advisories(must: bool) -> Result<(), Failure> {
    let mut fetch = Command::new("timeout");
    fetch.current_dir(root()).arg("60").arg(program()?);
    if can_run(fetch.args(["--log-level", "off", "fetch", "db"])) {
        return run(cargo_deny()?.args(["check", "advisories"]));
    }
    let snapshot = root().join(SNAPSHOT);
    if snapshot.join("TAKEN").exists() {
        let (day, start) = taken(&snapshot)?;
        let age = now().duration_since(start)?.as_secs().div_euclid(86_400);
        say(&format!(
            "ADVISORIES: THE DATABASE CANNOT BE FETCHED HERE; CHECKED AGAINST THE SNAPSHOT OF \
             {day}, {age} DAYS OLD"
        ));
        let missing = not_looked_up(&snapshot, &root().join("Cargo.lock"))?;
        if !missing.is_empty() {
            say(&format!("ADVISORIES: THE SNAPSHOT DOES NOT KNOW {}", missing.join(", ")));
        }
        if must && (age > OLD_DAYS || !missing.is_empty()) {
            let text = "the snapshot of advisories is too old or does not know all crates; fetch the \
                        database, or make the snapshot again (CONTRIBUTING.md)";
            return Err(text.into());
        }
        return against(&snapshot).and_then(|mut deny| run(&mut deny));
    }
    let text = "ADVISORIES WERE NOT CHECKED: THEIR DATABASE CANNOT BE FETCHED HERE, AND THERE IS NO \
                SNAPSHOT IN supply-chain/advisory-db";
    if must {
        return Err(text.into());
    }
    say(&format!("SKIPPED: {text}"));
    Ok(())
}

fn program() -> Result<PathBuf, Failure> {
    tools::cargo("cargo-deny", VERSION)
}

fn cargo_deny() -> Result<Command, Failure> {
    let mut deny = Command::new(program()?);
    deny.current_dir(root()).args(["--log-level", "error"]);
    Ok(deny)
}

#[expect(clippy::disallowed_methods, reason = "tasks have no port for the clock")]
fn now() -> SystemTime {
    SystemTime::now()
}

/// Returns the day of a snapshot as text, and the first moment of that day.
fn taken(snapshot: &Path) -> Result<(String, SystemTime), Failure> {
    let day = fs::read_to_string(snapshot.join("TAKEN"))?.trim().to_owned();
    let start = humantime::parse_rfc3339(&format!("{day}T00:00:00Z"))
        .map_err(|_invalid| format!("{day:?} in TAKEN is not a day; write it like 2026-11-25"))?;
    Ok((day, start))
}

/// Returns the crates of a lock file that come from a registry and that `snapshot` does not know.
fn not_looked_up(snapshot: &Path, lock: &Path) -> Result<Vec<String>, Failure> {
    let known = fs::read_to_string(snapshot.join("CRATES"))?;
    let known: BTreeSet<&str> = known.lines().collect();
    let lock = fs::read_to_string(lock)?;
    let foreign = lock.split("[[package]]").filter(|package| package.contains("\nsource = "));
    let names: BTreeSet<&str> = foreign
        .filter_map(|package| package.trim_start().strip_prefix("name = \"")?.split('"').next())
        .collect();
    Ok(names.difference(&known).map(|name| (*name).to_owned()).collect())
}

/// Checks only against `snapshot`.
fn against(snapshot: &Path) -> Result<Command, Failure> {
    let databases = target().join("advisory-dbs");
    let database = databases.join(DATABASE);
    drop(fs::remove_dir_all(&database));
    fs::create_dir_all(database.join(".git"))?;
    run(Command::new("cp").arg("-R").arg(snapshot.join("crates")).arg(&database))?;
    // cargo-deny reads the time of the last fetch from the time of this file.
    let fetched = File::create(database.join(".git/FETCH_HEAD"))?;
    fetched.set_modified(taken(snapshot)?.1)?;
    let rules = fs::read_to_string(root().join("deny.toml"))?;
    // The age is judged by the caller.
    let path = format!(
        "[advisories]\nmaximum-db-staleness = \"P100Y\"\ndb-path = {:?}\n",
        databases.display().to_string()
    );
    let changed = rules.replacen("[advisories]\n", &path, 1);
    if changed == rules {
        return Err("deny.toml has no table [advisories]".into());
    }
    // Only the registry knows yanked crates.
    let changed = changed.replacen("yanked = \"deny\"", "yanked = \"allow\"", 1);
    let config = databases.join("deny.toml");
    fs::write(&config, changed)?;
    let mut deny = cargo_deny()?;
    deny.args(["--offline", "--config"]).arg(config).args(["check", "advisories"]);
    Ok(deny)
}

/// Tests the check against a snapshot. An invented advisory against a crate of the program must
/// fail the check, an advisory against another crate must not, whatever the age of the snapshot.
fn a_snapshot_counts() -> Result<(), Failure> {
    let lock = root().join("Cargo.lock");
    let knows_tokio = tempfile::tempdir()?;
    fs::write(knows_tokio.path().join("CRATES"), "tokio\n")?;
    let missing = not_looked_up(knows_tokio.path(), &lock)?;
    let is_missing = |name: &str| missing.iter().any(|missing| missing == name);
    if is_missing("tokio") || is_missing("vault-kube-kms") || !is_missing("rustls") {
        return Err(
            format!("the crates that a snapshot does not know are misjudged: {missing:?}").into()
        );
    }
    let today = humantime::format_rfc3339_seconds(now()).to_string();
    let today = today.split('T').next().unwrap_or_default();
    for (name, day, fails) in [
        ("tokio", today, true),
        ("no-crate-of-the-program", today, false),
        ("tokio", "2020-01-01", true),
        ("no-crate-of-the-program", "2020-01-01", false),
    ] {
        let snapshot = tempfile::tempdir()?;
        let folder = snapshot.path().join("crates").join(name);
        fs::create_dir_all(&folder)?;
        fs::write(snapshot.path().join("TAKEN"), day)?;
        let advisory = format!(
            "```toml\n[advisory]\nid = \"RUSTSEC-2020-9999\"\npackage = \"{name}\"\n\
             date = \"2020-01-01\"\n[versions]\npatched = []\n```\n\n# Made up\n\nFor a test.\n"
        );
        fs::write(folder.join("RUSTSEC-2020-9999.md"), advisory)?;
        let passes = output(&mut against(snapshot.path())?);
        if passes.is_ok() == fails {
            return Err(format!("the check against a snapshot of {day} misjudges {name}").into());
        }
    }
    Ok(())
}
