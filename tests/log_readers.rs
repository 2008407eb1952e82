//! Tests the binary while its output is not read: it serves, it ends, and it counts lost lines.
#![allow(missing_docs, clippy::pedantic, clippy::restriction, reason = "tests")]

use std::{
    ffi::OsStr,
    io::{BufRead, BufReader, PipeReader, PipeWriter, Read, Write},
    net::{TcpListener, TcpStream},
    os::unix::net::UnixDatagram,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus},
};

use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use tempfile::TempDir;
use vault_kube_kms::adapters::grpc::{
    address::SocketAddress,
    client::{self, KmsClient},
    wire::{EncryptRequest, StatusRequest},
};

const BINARY: &str = env!("CARGO_BIN_EXE_vault-kube-kms");

/// A full pipe, so that the first byte that a process writes must wait.
fn full_pipe() -> (PipeReader, PipeWriter) {
    let (reader, mut writer) = std::io::pipe().unwrap();
    let flags = fcntl_getfl(&writer).unwrap();
    fcntl_setfl(&writer, flags | OFlags::NONBLOCK).unwrap();
    while writer.write(&[b'\n'; 4096]).is_ok() {}
    fcntl_setfl(&writer, flags).unwrap();
    (reader, writer)
}

/// A process whose output and errors go into full pipes. It ends when this value is dropped.
struct Unread {
    child: Child,
    stdout: PipeReader,
    _stderr: PipeReader,
    notified: UnixDatagram,
    directory: TempDir,
}

impl Unread {
    /// Starts the command `args` with a directory of its own, which replaces each `{}` in them.
    fn start(args: &[&str]) -> Self {
        Self::start_in(tempfile::tempdir().unwrap(), args)
    }

    fn start_in(directory: TempDir, args: &[&str]) -> Self {
        let here = directory.path().to_str().unwrap();
        let notified = UnixDatagram::bind(directory.path().join("notify")).unwrap();
        let ((stdout, to_stdout), (stderr, to_stderr)) = (full_pipe(), full_pipe());
        let mut command = Command::new(BINARY);
        command.args(args.iter().map(|arg| arg.replace("{}", here)));
        command.env("NOTIFY_SOCKET", directory.path().join("notify")).env("TMPDIR", here);
        let child = command.stdout(to_stdout).stderr(to_stderr).spawn().unwrap();
        Self { child, stdout, _stderr: stderr, notified, directory }
    }

    /// Starts the provider on the embedded keeper.
    fn serve(flags: &[&str]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let key_file = format!("--local-key-file={}", directory.path().join("key.json").display());
        let made = Command::new(BINARY).args(["local", "init", &key_file]).output().unwrap();
        assert!(made.status.success());
        let mut args = vec!["--keeper=local", &key_file, "--listen-address={}/kms.sock"];
        args.extend(flags);
        let provider = Self::start_in(directory, &args);
        provider.wait_until_bound();
        provider
    }

    fn wait_until_bound(&self) {
        let mut said = [0; 512];
        loop {
            let count = self.notified.recv(&mut said).unwrap();
            if said[..count].starts_with(b"READY=1") {
                return;
            }
        }
    }

    fn path(&self, name: impl AsRef<Path>) -> PathBuf {
        self.directory.path().join(name)
    }

    fn terminate(&mut self) -> ExitStatus {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        self.child.wait().unwrap()
    }
}

impl Drop for Unread {
    fn drop(&mut self) {
        drop((self.child.kill(), self.child.wait()));
    }
}

async fn connect(socket: &Path) -> KmsClient {
    let address = SocketAddress::parse(socket.to_str().unwrap()).unwrap();
    let mut kms = client::connect(&address).await.unwrap();
    while kms.status(StatusRequest {}).await.is_err() {
        tokio::task::yield_now().await;
    }
    kms
}

/// Makes `count` calls, 100 at a time.
async fn encrypt(kms: KmsClient, count: usize) {
    let mut callers = tokio::task::JoinSet::new();
    for caller in 0..100 {
        let mut kms = kms.clone();
        callers.spawn(async move {
            for call in 0..count / 100 {
                let uid = format!("{caller}-{call}");
                let request = EncryptRequest { plaintext: vec![7; 32], uid };
                kms.encrypt(request).await.unwrap();
            }
        });
    }
    while let Some(ended) = callers.join_next().await {
        ended.unwrap();
    }
}

fn metric(port: u16, name: &str) -> u64 {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    write!(stream, "GET /metrics HTTP/1.0\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let value = answer.lines().find_map(|line| line.strip_prefix(&format!("{name} ")));
    value.unwrap_or_else(|| panic!("{answer} has no {name}")).parse().unwrap()
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

#[tokio::test]
async fn calls_are_answered_while_nothing_reads_the_log() {
    let port = free_port();
    let metrics = format!("--metrics-port={port}");
    let mut provider = Unread::serve(&["--log-level=debug", "--health-port=0", &metrics]);
    let kms = connect(&provider.path("kms.sock")).await;
    encrypt(kms.clone(), 100_000).await;
    let dropped = metric(port, "vault_kube_kms_log_lines_dropped_total");
    assert!(dropped > 50_000, "{dropped}");

    // The reader continues. It gets the kept lines, the number of dropped ones, and new lines.
    let mut lines = BufReader::new(&provider.stdout).lines().map(Result::unwrap);
    let told = lines.find(|line| line.contains("log lines were dropped")).unwrap();
    let number = told.split("\"dropped\":").nth(1).unwrap();
    let number: u64 = number[..number.find(|c: char| !c.is_numeric()).unwrap()].parse().unwrap();
    assert!(number >= dropped, "{told}");
    encrypt(kms.clone(), 100).await;
    assert!(lines.any(|line| line.contains("\"99-0\"")));
    drop(lines);
    let mut rest = provider.stdout.try_clone().unwrap();
    let reading = std::thread::spawn(move || {
        let mut text = String::new();
        rest.read_to_string(&mut text).unwrap();
        text
    });
    assert_eq!(provider.terminate().code(), Some(0));
    let rest = reading.join().unwrap();
    assert!(rest.lines().last().unwrap().contains("\"stopped\""), "{rest}");
}

#[test]
fn a_stop_does_not_wait_for_a_reader() {
    let mut provider = Unread::serve(&["--health-port=0", "--metrics-port=0"]);
    assert_eq!(provider.terminate().code(), Some(0));
}

#[test]
fn a_start_that_fails_does_not_wait_for_a_reader() {
    for (args, code) in [
        (&["--keeper=local", "--local-key-file={}/none", "--listen-address={}/kms.sock"][..], 1),
        (&["--no-such-flag"], 64),
    ] {
        let mut provider = Unread::start(args);
        assert_eq!(provider.child.wait().unwrap().code(), Some(code), "{args:?}");
    }
}

#[tokio::test]
async fn dev_serves_while_nothing_reads_its_output() {
    let mut dev = Unread::start(&["dev"]);
    dev.wait_until_bound();
    let home = format!("vault-kube-kms-dev.{}", dev.child.id());
    let kms = connect(&dev.path(home).join("kms.sock")).await;
    encrypt(kms.clone(), 100).await;
    assert_eq!(dev.terminate().code(), Some(0));
    let left = std::fs::read_dir(dev.directory.path()).unwrap();
    let left: Vec<_> = left.map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, [OsStr::new("notify")]);
}

#[test]
fn dev_that_is_stopped_during_its_round_trip_ends_well() {
    for _ in 0..20 {
        let mut dev = Unread::start(&["dev"]);
        dev.wait_until_bound();
        assert_eq!(dev.terminate().code(), Some(0));
    }
}
