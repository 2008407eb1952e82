//! Tests that the binary names each kind of file that it cannot read, and reads a plain file in
//! its place without a restart.
#![cfg(feature = "testkit")]
#![allow(missing_docs, clippy::pedantic, clippy::restriction, reason = "tests")]

#[path = "support/mod.rs"]
mod support;

use std::{
    fs,
    io::{BufRead, BufReader, Write},
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    sync::mpsc::{self, Receiver},
    time::Duration,
};

use rustix::fs::{CWD, FileType, Mode, mknodat};
use support::stand_in::StandIn;

const BINARY: &str = env!("CARGO_BIN_EXE_vault-kube-kms");

/// The time limit of a wait for a line.
const LINE: Duration = Duration::from_secs(30);

/// A provider whose log is read line by line; it ends with this value, by its own process id.
struct Running {
    process: Child,
    lines: Receiver<String>,
}

impl Running {
    fn start(directory: &Path, args: &[String]) -> Self {
        let socket = directory.join("kms.sock");
        let mut process = Command::new(BINARY)
            .arg(format!("--listen-address=unix://{}", socket.display()))
            .args(["--health-port=0", "--metrics-port=0"])
            .args(args)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (sender, lines) = mpsc::channel();
        let log = process.stdout.take().unwrap();
        std::thread::spawn(move || {
            for line in BufReader::new(log).lines().map_while(Result::ok) {
                drop(sender.send(line));
            }
        });
        Self { process, lines }
    }

    /// Returns the first line from now on that contains all of `texts`.
    fn line_with(&self, texts: &[&str]) -> String {
        loop {
            let line = self.lines.recv_timeout(LINE);
            let line = line.unwrap_or_else(|error| panic!("no line with {texts:?}: {error}"));
            if texts.iter().all(|text| line.contains(text)) {
                return line;
            }
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        drop((self.process.kill(), self.process.wait()));
    }
}

fn fifo(path: &Path) {
    mknodat(CWD, path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
}

/// Puts a plain file that holds `text` in the place of whatever is at `path`, in one step.
fn replace(path: &Path, text: &str) {
    let draft = path.with_extension("draft");
    fs::write(&draft, text).unwrap();
    if path.is_dir() {
        fs::remove_dir(path).unwrap();
    }
    fs::rename(&draft, path).unwrap();
}

fn link(to: &'static str) -> impl Fn(&Path) {
    move |path| symlink(to, path).unwrap()
}

type Make = Box<dyn Fn(&Path)>;

/// Kinds of files without a readable credential or bundle: how to make one, and its name in the
/// error.
fn kinds() -> Vec<(Make, &'static str)> {
    vec![
        (Box::new(fifo), "is a named pipe (FIFO)"),
        (Box::new(|path: &Path| fs::create_dir(path).unwrap()), "is a directory"),
        (Box::new(link("/dev/zero")), "is a character device"),
        (Box::new(link("nowhere")), "is a symbolic link whose target does not exist"),
        (Box::new(|path: &Path| symlink(path, path).unwrap()), "symbolic links"),
        (Box::new(|path: &Path| fs::write(path, vec![b'x'; 5_000_000]).unwrap()), "larger than"),
    ]
}

#[test]
fn names_each_odd_credential_file_and_reads_a_plain_file_later() {
    for flag in ["approle-secret-id-path", "approle-role-id-path"] {
        for (make, named) in kinds() {
            let directory = tempfile::tempdir().unwrap();
            let other = directory.path().join("other");
            fs::write(&other, "a-credential").unwrap();
            let path = directory.path().join("credential");
            make(&path);
            let mut args = ["--vault-address=https://127.0.0.1:1", "--transit-key=k"]
                .map(str::to_owned)
                .to_vec();
            args.push(format!("--{flag}={}", path.display()));
            args.push(if flag == "approle-role-id-path" {
                format!("--approle-secret-id-path={}", other.display())
            } else {
                "--approle-role-id=r".to_owned()
            });
            let provider = Running::start(directory.path(), &args);
            let place = path.display().to_string();
            provider.line_with(&["credential-unreadable", &format!("--{flag}"), &place, named]);
            replace(&path, "a-credential\n");
            // The file is read. The next error is about the missing server.
            provider.line_with(&["keeper-unreachable"]);
        }
    }
}

fn run(args: &[String], input: Option<&str>) -> Output {
    let mut command = Command::new(BINARY);
    command.args(args).env_clear().stdin(Stdio::piped());
    let mut process = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    if let Some(input) = input {
        process.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    }
    process.wait_with_output().unwrap()
}

#[test]
fn names_each_odd_configuration_file() {
    let directory = tempfile::tempdir().unwrap();
    for (n, (make, named)) in kinds().into_iter().enumerate().skip(1) {
        let path = directory.path().join(n.to_string());
        make(&path);
        let output = run(&[format!("--config={}", path.display())], None);
        assert_eq!(output.status.code(), Some(64));
        let text = String::from_utf8(output.stderr).unwrap();
        let place = path.display().to_string();
        let line = text.lines().find(|line| line.contains("--config (")).unwrap();
        assert!(line.contains(&place) && line.contains(named), "{named}: {line}");
    }
}

#[test]
fn a_configuration_may_come_through_a_pipe() {
    let output = run(&["--config=/dev/stdin".to_owned()], Some("transit-key = 'from-the-pipe/'\n"));
    assert_eq!(output.status.code(), Some(64));
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(text.contains("--transit-key (given in /dev/stdin)"), "{text}");
}

/// Returns a server, the arguments that lead to it, and the path for its authorities, which does
/// not exist yet.
async fn served(directory: &Path) -> (StandIn, Vec<String>, PathBuf) {
    let stand_in = StandIn::start().await;
    let (secret, ca) = (directory.join("secret-id"), directory.join("ca.pem"));
    fs::write(&secret, &stand_in.provisioned.secret_id).unwrap();
    let args = vec![
        format!("--vault-address={}", stand_in.address),
        format!("--transit-key={}", stand_in.provisioned.key),
        format!("--approle-role-id={}", stand_in.provisioned.role_id),
        format!("--approle-secret-id-path={}", secret.display()),
        format!("--tls-ca-file={}", ca.display()),
        "--rotation-delay=0s".to_owned(),
    ];
    (stand_in, args, ca)
}

#[tokio::test(flavor = "multi_thread")]
async fn waits_for_a_file_of_authorities_that_comes_later() {
    let missing: (Make, &str) = (Box::new(|_: &Path| ()), "cannot be read");
    for (make, named) in kinds().into_iter().chain([missing]) {
        let directory = tempfile::tempdir().unwrap();
        let (stand_in, args, ca) = served(directory.path()).await;
        make(&ca);
        let provider = Running::start(directory.path(), &args);
        let place = ca.display().to_string();
        provider.line_with(&["keeper-unreachable", "--tls-ca-file", &place, named]);
        replace(&ca, &String::from_utf8(stand_in.ca.clone()).unwrap());
        provider.line_with(&["\"healthy\""]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn ends_the_start_with_unusable_authorities() {
    let directory = tempfile::tempdir().unwrap();
    let (_stand_in, args, ca) = served(directory.path()).await;
    for text in ["", "hello", "-----BEGIN CERTIFICATE-----\nnope\n-----END CERTIFICATE-----\n"] {
        fs::write(&ca, text).unwrap();
        let output = run(&args, None);
        assert_eq!(output.status.code(), Some(64), "{text:?}");
        let text = String::from_utf8(output.stderr).unwrap();
        assert!(text.contains("--tls-ca-file (") && text.contains("certificate"), "{text}");
    }
}
