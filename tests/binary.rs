//! Tests the binary as an operator uses it: its command line, exit codes and output.
#![allow(
    missing_docs,
    clippy::pedantic,
    clippy::restriction,
    clippy::disallowed_methods,
    reason = "tests"
)]

use std::{
    fs,
    io::{BufRead, BufReader, ErrorKind, Read, Write},
    net::{TcpListener, TcpStream},
    os::unix::fs::PermissionsExt,
    path::Path,
    process::{Child, Command, Output, Stdio},
};

const BINARY: &str = env!("CARGO_BIN_EXE_vault-kube-kms");

fn run(args: &[&str]) -> Output {
    Command::new(BINARY).args(args).env_clear().output().unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

/// A process that ends with this value, by its own id.
struct Running(Child);

impl Running {
    fn start(command: &mut Command) -> Self {
        Self(command.stdout(Stdio::piped()).spawn().unwrap())
    }

    /// Returns its lines up to the first that contains `text`.
    fn lines_until(&mut self, text: &str) -> Vec<String> {
        let mut lines = Vec::new();
        for line in BufReader::new(self.0.stdout.as_mut().unwrap()).lines() {
            let line = line.unwrap();
            let found = line.contains(text);
            lines.push(line);
            if found {
                return lines;
            }
        }
        panic!("it ended without {text:?}: {lines:#?}");
    }

    fn terminate(mut self) -> Option<i32> {
        let pid = rustix::process::Pid::from_child(&self.0);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        self.0.wait().unwrap().code()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        drop((self.0.kill(), self.0.wait()));
    }
}

fn local_args(directory: &Path) -> [String; 3] {
    let key = format!("--local-key-file={}", directory.join("key.json").display());
    assert!(run(&["local", "init", &key]).status.success());
    let socket = format!("--listen-address={}", directory.join("kms.sock").display());
    ["--keeper=local".to_owned(), key, socket]
}

fn get(port: u16, path: &str) -> String {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    write!(stream, "GET {path} HTTP/1.0\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

#[test]
#[cfg_attr(feature = "pkcs11", ignore = "of the program as it is shipped, without that keeper")]
fn the_help_names_every_flag_and_default() {
    let output = run(&["--help"]);
    assert!(output.status.success());
    insta::assert_snapshot!(String::from_utf8(output.stdout).unwrap());
}

#[test]
fn the_version_names_the_commit() {
    let text = String::from_utf8(run(&["--version"]).stdout).unwrap();
    assert!(text.starts_with(concat!("vault-kube-kms ", env!("CARGO_PKG_VERSION"), " (commit ")));
    let module = if cfg!(feature = "fips") { ", FIPS build)" } else { ", no FIPS build)" };
    assert!(text.trim_end().ends_with(module), "{text}");
}

#[test]
fn reports_all_configuration_errors_and_binds_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("kms.sock");
    let listen = format!("-listen-address=unix://{}", socket.display());
    let output = run(&[
        &listen,
        "-vault-address=https://root:canary@vault",
        "--transit-key=a/b",
        "-metrics-port=x",
    ]);
    assert_eq!(output.status.code(), Some(64));
    let text = stderr(&output);
    for flag in ["vault-address", "transit-key", "approle-role-id", "metrics-port"] {
        assert!(text.contains(&format!("--{flag} (")), "{flag} in {text}");
    }
    assert!(!text.contains("canary") && !socket.exists(), "{text}");
}

/// Somebody mixes up two flags.
#[test]
fn a_secret_in_place_of_the_configuration_is_not_printed() {
    let directory = tempfile::tempdir().unwrap();
    let secret = directory.path().join("secret-id");
    for content in ["5b1c9f1e-canary\n", "root:$6$canary:19000:0:99999:7:::\n", "t=canary"] {
        fs::write(&secret, content).unwrap();
        for (command, code) in [(&["check"][..], 2), (&["serve"], 64), (&[], 64)] {
            let config = format!("--config={}", secret.display());
            let output = run(&[command, &[&config]].concat());
            assert_eq!(output.status.code(), Some(code));
            let text = stderr(&output) + &String::from_utf8(output.stdout.clone()).unwrap();
            assert!(text.contains("line 1, column ") && !text.contains("canary"), "{text}");
        }
    }
}

#[test]
fn unknown_commands_and_flags_are_refused_with_a_hint() {
    assert_eq!(run(&["server"]).status.code(), Some(64));
    let output = run(&["--vault-adress=https://v"]);
    assert_eq!(output.status.code(), Some(64));
    assert!(stderr(&output).contains("did you mean --vault-address?"));
}

#[test]
fn the_log_flags_of_the_original_are_accepted() {
    let directory = tempfile::tempdir().unwrap();
    let mut command = Command::new(BINARY);
    command.args(local_args(directory.path())).args(["--health-port=0", "--metrics-port=0"]);
    let ignored = ["zap-devel", "zap-stacktrace-level=error", "zap-time-encoding=iso8601"];
    command.arg("--zap-encoder=console").args(ignored.map(|flag| format!("--{flag}")));
    let mut provider = Running::start(&mut command);
    let lines = provider.lines_until(" INFO healthy");
    assert!(lines.iter().all(|line| !line.contains(['{', '\u{1b}'])), "{lines:#?}");
    for flag in ignored.map(|flag| flag.split('=').next().unwrap()) {
        let warning = format!(" WARN --{flag} is ignored");
        assert!(lines.iter().any(|line| line.contains(&warning)), "{flag}: {lines:#?}");
    }
    assert_eq!(provider.terminate(), Some(0));
}

#[test]
fn a_busy_port_is_a_warning_and_the_socket_serves() {
    let directory = tempfile::tempdir().unwrap();
    let busy = TcpListener::bind("0.0.0.0:0").unwrap();
    let port = busy.local_addr().unwrap().port();
    let mut command = Command::new(BINARY);
    command.args(local_args(directory.path()));
    command.args([format!("--health-port={port}"), format!("--metrics-port={port}")]);
    let mut provider = Running::start(&mut command);
    let lines = provider.lines_until("\"healthy\"");
    let warned = |what: &str| {
        lines
            .iter()
            .any(|line| line.contains("\"WARN\"") && line.contains(&format!("the {what} port")))
    };
    assert!(warned("health") && warned("metrics"), "{lines:#?}");
    assert_eq!(provider.terminate(), Some(0));
    assert!(!directory.path().join("kms.sock").exists(), "the socket goes with it");
}

#[test]
fn every_start_warns_where_others_may_listen_first() {
    const WARNING: &str = "a process that listens there first receives seeds";
    let directory = tempfile::tempdir().unwrap();
    let [_, key, socket] = local_args(directory.path());
    let abstract_name = format!("--listen-address=unix:///@binary-test-{}", std::process::id());
    for (mode, listen, is_warned) in
        [(0o750, &socket, false), (0o1777, &socket, true), (0o750, &abstract_name, true)]
    {
        fs::set_permissions(&directory, fs::Permissions::from_mode(mode)).unwrap();
        for _start in 0..2 {
            let mut command = Command::new(BINARY);
            command.args(["--keeper=local", "--health-port=0", "--metrics-port=0"]);
            let mut provider = Running::start(command.args([&key, listen]));
            let lines = provider.lines_until("\"healthy\"");
            let warned = lines.iter().filter(|line| line.contains(WARNING)).count();
            assert_eq!(warned, usize::from(is_warned), "{mode:o} {listen}: {lines:#?}");
            assert_eq!(provider.terminate(), Some(0));
        }
    }
}

#[test]
fn the_health_port_is_open_only_at_its_address() {
    let directory = tempfile::tempdir().unwrap();
    let free = TcpListener::bind("127.0.0.2:0").unwrap();
    let port = free.local_addr().unwrap().port();
    drop(free);
    let mut command = Command::new(BINARY);
    command.args(local_args(directory.path())).arg("--metrics-port=0");
    command.args(["--health-address=127.0.0.2".to_owned(), format!("--health-port={port}")]);
    let mut provider = Running::start(&mut command);
    provider.lines_until("\"healthy\"");
    TcpStream::connect(("127.0.0.2", port)).unwrap();
    let elsewhere = TcpStream::connect(("127.0.0.3", port)).unwrap_err();
    assert_eq!(elsewhere.kind(), ErrorKind::ConnectionRefused);
    assert_eq!(provider.terminate(), Some(0));
}

#[test]
fn probes_and_metrics_have_the_names_that_operators_know() {
    let directory = tempfile::tempdir().unwrap();
    let free = [0, 0].map(|_| TcpListener::bind("127.0.0.1:0").unwrap());
    let [health, metrics] = [0, 1].map(|n| free[n].local_addr().unwrap().port());
    drop(free);
    let mut command = Command::new(BINARY);
    command.args(local_args(directory.path()));
    command.args([format!("--health-port={health}"), format!("--metrics-port={metrics}")]);
    let mut provider = Running::start(&mut command);
    provider.lines_until("\"healthy\"");
    assert!(get(health, "/healthz").starts_with("HTTP/1.0 200"));
    assert!(get(health, "/readyz").starts_with("HTTP/1.0 200"));
    let text = get(metrics, "/metrics");
    for name in [
        "process_resident_memory_bytes",
        "vault_kube_kms_healthy 1",
        "vault_kube_kms_key_version 1",
    ] {
        assert!(text.contains(name), "{name} in {text}");
    }
    let state = get(metrics, "/statusz?format=json");
    assert!(state.contains("in_force") && state.contains("no_new_privs"), "{state}");
    assert_eq!(provider.terminate(), Some(0));
}

#[test]
fn names_the_flag_of_a_missing_secret_id_and_recovers() {
    let directory = tempfile::tempdir().unwrap();
    let secret = directory.path().join("secret-id");
    let mut command = Command::new(BINARY);
    command.arg(format!("--listen-address={}", directory.path().join("kms.sock").display()));
    command.arg(format!("--approle-secret-id-path={}", secret.display()));
    command.args(["--vault-address=https://127.0.0.1:1", "--transit-key=k", "--approle-role-id=r"]);
    command.args(["--health-port=0", "--metrics-port=0"]).env("HTTPS_PROXY", "http://proxy:1");
    let mut provider = Running::start(&mut command);
    let lines = provider.lines_until("credential-unreadable");
    assert!(lines.last().unwrap().contains("--approle-secret-id-path"), "{lines:#?}");
    assert!(lines.iter().any(|line| line.contains("HTTPS_PROXY is set and IGNORED")), "{lines:#?}");
    fs::write(&secret, "a-secret-id\n").unwrap();
    // The file is read at once. The next error is about the missing server.
    provider.lines_until("keeper-unreachable");
    assert_eq!(provider.terminate(), Some(0));
}

#[test]
fn dev_shows_a_round_trip_and_what_to_paste() {
    let directory = tempfile::tempdir().unwrap();
    let mut command = Command::new(BINARY);
    command.arg("dev").env("TMPDIR", directory.path());
    let mut dev = Running::start(&mut command);
    let lines = dev.lines_until("Serving until stopped");
    for start in
        ["socket ", "Status    ok, v2, v1.", "Encrypt   32 bytes", "Decrypt   the same 32 bytes"]
    {
        assert!(lines.iter().any(|line| line.starts_with(start)), "{start}: {lines:#?}");
    }
    let pasted = lines.iter().find(|line| line.trim_start().starts_with("endpoint: unix:///"));
    assert!(pasted.is_some(), "{lines:#?}");
    assert_eq!(dev.terminate(), Some(0));
    assert_eq!(fs::read_dir(&directory).unwrap().count(), 0, "files are left behind");
}
