//! Boots a node whose kubelet runs etcd, kube-apiserver and the image as static Pods, to test it or
//! to try it.

use std::{
    fs,
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread::sleep,
    time::Duration,
};

use crate::{
    control_plane::{self, KUBERNETES},
    debian, image,
    run::{Failure, run, say, target},
    test::suite,
    tools,
};

/// How often a change of the node is checked, and the wait between two checks.
const LOOKS: usize = 1_500;
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// Runs the test suite of the node.
pub(crate) fn test(bao: Option<&Path>) -> Result<(), Failure> {
    let Some(mut go) = prepared(bao, "15m")? else { return Ok(()) };
    say("Go: a node of a real kubelet, and the image in it");
    run(go.arg("-v"))
}

/// Boots a node that continues to run, and prints the commands to use it.
pub(crate) fn up() -> Result<(), Failure> {
    let place = place();
    if place.join("pid").exists() {
        return Err("a node is already running; stop it with cargo xtask node down".into());
    }
    let bao = tools::openbao()?;
    let Some(mut go) = prepared(bao.as_deref(), "0")? else { return Ok(()) };
    fs::create_dir_all(&place)?;
    let log = fs::File::create(place.join("log"))?;
    go.args(["-v", "-run=^TestNode$"]).env("NODE_STAY", &place).env("APART_BOUND", "0");
    go.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).process_group(0);
    let mut started = go.spawn()?;
    let booted = eventually(|| {
        let ended = started.try_wait().is_ok_and(|status| status.is_some());
        ended || place.join("ready").exists()
    });
    match fs::read_to_string(place.join("ready")) {
        Ok(text) if booted => {
            say(&text);
            Ok(())
        }
        _ => Err(format!("the node does not boot; see {}", place.join("log").display()).into()),
    }
}

/// Stops the node that `up` booted.
pub(crate) fn down() -> Result<(), Failure> {
    let pid = place().join("pid");
    let Ok(process) = fs::read_to_string(&pid) else { return Err("no node is running".into()) };
    if run(Command::new("kill").arg(process.trim())).is_err() {
        return fs::remove_file(&pid).map_err(Into::into);
    }
    let proc = Path::new("/proc").join(process.trim());
    if eventually(|| !proc.exists()) { Ok(()) } else { Err("the node does not stop".into()) }
}

/// Waits for at most 5 minutes until `holds` returns true. Returns whether it did.
fn eventually(mut holds: impl FnMut() -> bool) -> bool {
    for _ in 0..LOOKS {
        if holds() {
            return true;
        }
        sleep(LOOK_EVERY);
    }
    holds()
}

fn place() -> PathBuf {
    target().join("node")
}

/// Prepares what the suite needs, and returns its command. Announces and returns `None` when that
/// is not possible.
fn prepared(bao: Option<&Path>, bound: &str) -> Result<Option<Command>, Failure> {
    let packages = [
        ("containerd", "1.6.20~ds1-1+deb12u3"),
        ("runc", "1.1.5+ds1-1+deb12u1"),
        ("iproute2", "6.1.0-3"),
    ];
    let Some(()) = debian::packages(&packages)? else { return Ok(None) };
    let Some(ours) = image::all()? else { return Ok(None) };
    let parts = control_plane::build(KUBERNETES)?;
    let images = image::of_a_node(&ours, &parts)?;
    let mut go = suite("node", bound, bao);
    go.env("KUBERNETES", parts.kubernetes).env("NODE", control_plane::node()?);
    go.env("ETCD", parts.etcd).env("ETCD_VERSION", control_plane::ETCD).env("IMAGES", images);
    Ok(Some(go))
}
