//! Tests what the sandbox refuses and allows: within a process that enters it, and at the binary
//! from outside.
#![allow(
    missing_docs,
    clippy::pedantic,
    clippy::restriction,
    clippy::disallowed_methods,
    reason = "tests"
)]

use std::{
    fs,
    io::{self, BufRead, BufReader},
    net::{TcpListener, TcpStream, UdpSocket},
    os::unix::{
        fs::{MetadataExt, PermissionsExt},
        net::{UnixDatagram, UnixListener, UnixStream},
        process::{CommandExt, ExitStatusExt},
    },
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::Duration,
};

use rustix::{io::Errno, process::geteuid};
use socket2::{Domain, Protocol, Socket, Type};
use vault_kube_kms::adapters::system::sandbox::{self, Needs};

const BINARY: &str = env!("CARGO_BIN_EXE_vault-kube-kms");

/// The variable that gives the child of the first test its directory and two ports.
const PLACE: &str = "SANDBOX_TEST_PLACE";

#[track_caller]
fn refused<T>(tried: io::Result<T>, errno: Errno) {
    let error = tried.err().map(|error| error.to_string());
    assert_eq!(error, Some(io::Error::from(errno).to_string()));
}

/// Returns the rights of a thread by `/proc/<pid>/task/<tid>/status`.
fn privileges(status: &Path) -> Vec<String> {
    let text = fs::read_to_string(status).unwrap();
    let names = ["Umask:", "CapPrm:", "CapEff:", "CapBnd:", "NoNewPrivs:", "Seccomp:"];
    let lines = text.lines().filter(|line| names.iter().any(|name| line.starts_with(name)));
    lines.map(|line| line.replace('\t', "")).collect()
}

const NONE: [&str; 6] = [
    "Umask:0077",
    "CapPrm:0000000000000000",
    "CapEff:0000000000000000",
    "CapBnd:0000000000000000",
    "NoNewPrivs:1",
    "Seccomp:2",
];

/// Returns whether privileges are dropped. Only root can reduce the bounding set.
#[track_caller]
fn assert_unprivileged(status: &Path) {
    let found = privileges(status);
    let is_root = geteuid().is_root();
    for line in NONE.iter().filter(|line| is_root || !line.starts_with("CapBnd")) {
        assert!(found.iter().any(|found| found == line), "{line}: {found:?}");
    }
}

#[test]
fn refuses_what_the_settings_do_not_need_and_allows_the_rest() {
    let directory = tempfile::tempdir().unwrap();
    for name in ["read", "written", "sockets/own"] {
        fs::create_dir_all(directory.path().join(name)).unwrap();
    }
    for name in ["outside", "read/id"] {
        fs::write(directory.path().join(name), "text").unwrap();
    }
    let listeners = [0, 1].map(|_| TcpListener::bind("127.0.0.1:0").unwrap());
    let [needed, other] = [0, 1].map(|n| listeners[n].local_addr().unwrap().port());
    let place = format!("{}:{needed}:{other}", directory.path().display());
    let output = again("within_the_sandbox").env(PLACE, place).output().unwrap();
    let [out, err] = [output.stdout, output.stderr].map(|text| String::from_utf8(text).unwrap());
    assert!(output.status.success() && out.contains("1 passed"), "{out}{err}");
}

/// Returns a command of this program that runs one of its ignored tests.
fn again(test: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", test, "--ignored", "--nocapture"]);
    command
}

/// A panic of the release build ends in this way.
#[test]
fn a_process_in_the_sandbox_can_abort() {
    let status = again("aborts_in_the_sandbox").status().unwrap();
    assert_eq!(status.signal(), Some(6), "{status}");
}

#[test]
#[ignore = "run by another test, as another process"]
fn aborts_in_the_sandbox() {
    drop(sandbox::enter(&Needs::default()));
    std::process::abort();
}

/// The test above runs this in another process.
#[test]
#[ignore = "run by another test, as another process"]
fn within_the_sandbox() {
    let place = std::env::var(PLACE).unwrap();
    let parts: Vec<_> = place.split(':').collect();
    let [root, needed, other] = parts.as_slice() else { panic!("{place}") };
    let root = PathBuf::from(root);
    let at = move |name: &str| root.join(name);
    let [needed, other] = [needed, other].map(|port| port.parse().unwrap());
    let needs = Needs {
        read: vec![at("read/id")],
        written: vec![at("written/cache")],
        sockets: vec![at("sockets/own/k.sock")],
        ports: vec![needed],
        ..Needs::default()
    };
    let report = sandbox::enter(&needs);
    let has_landlock = report.to_string().contains("Landlock");
    assert!(report.missing.is_empty() || !has_landlock, "{report:?}");
    thread::spawn(move || {
        calls_are_refused();
        if has_landlock {
            files(&at);
        } else {
            not_run();
        }
        if report.to_string().contains("(files, TCP ports") {
            ports(needed, other);
        }
        assert_unprivileged(Path::new("/proc/thread-self/status"));
    })
    .join()
    .unwrap();
}

/// sendto(2), Linux 3.7: connects with the first bytes.
const MSG_FASTOPEN: i32 = 0x2000_0000;

fn calls_are_refused() {
    refused(Command::new("/bin/true").status(), Errno::PERM);
    let own = rustix::process::getpid();
    refused(rustix::process::test_kill_process(own).map_err(Into::into), Errno::PERM);
    let flags = rustix::fs::MemfdFlags::empty();
    refused(rustix::fs::memfd_create("m", flags).map_err(Into::into), Errno::PERM);
    let limit = rustix::process::getrlimit(rustix::process::Resource::Core);
    let set = rustix::process::setrlimit(rustix::process::Resource::Core, limit);
    refused(set.map_err(Into::into), Errno::PERM);
    refused(Socket::new(Domain::PACKET, Type::DGRAM, None), Errno::PERM);
    refused(Socket::new(Domain::VSOCK, Type::STREAM, None), Errno::PERM);
    refused(Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::MPTCP)), Errno::PERM);
    // Connects without the check of the port.
    let tcp = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    let nobody = std::net::SocketAddr::from(([127, 0, 0, 1], 1)).into();
    refused(tcp.send_to_with_flags(b"x", &nobody, MSG_FASTOPEN), Errno::PERM);
    refused(
        tcp.send_to_vectored_with_flags(&[io::IoSlice::new(b"x")], &nobody, MSG_FASTOPEN),
        Errno::PERM,
    );
}

fn files(at: &impl Fn(&str) -> PathBuf) {
    assert_eq!(fs::read_to_string(at("read/id")).unwrap(), "text");
    refused(fs::write(at("read/id"), ""), Errno::ACCESS);
    refused(fs::write(at("read/other"), ""), Errno::ACCESS);
    refused(fs::remove_file(at("read/id")), Errno::ACCESS);
    for path in [at("outside"), "/etc/passwd".into(), "/etc/shadow".into(), BINARY.into()] {
        if path.exists() {
            refused(fs::read(path), Errno::ACCESS);
        }
    }
    refused(fs::read_dir("/"), Errno::ACCESS);
    fs::write(at("written/.cache.new"), "1").unwrap();
    fs::rename(at("written/.cache.new"), at("written/cache")).unwrap();
    assert_eq!(fs::read_to_string(at("written/cache")).unwrap(), "1");
    refused(fs::write(at("outside"), ""), Errno::ACCESS);
    for _ in 0..2 {
        let _listener = UnixListener::bind(at("sockets/own/k.sock")).unwrap();
        fs::set_permissions(at("sockets/own/k.sock"), fs::Permissions::from_mode(0o770)).unwrap();
        UnixStream::connect(at("sockets/own/k.sock")).unwrap();
        fs::remove_file(at("sockets/own/k.sock")).unwrap();
    }
    refused(fs::write(at("sockets/own/file"), ""), Errno::ACCESS);
    refused(fs::write(at("file"), ""), Errno::ACCESS);
}

fn ports(needed: u16, other: u16) {
    TcpStream::connect(("127.0.0.1", needed)).unwrap();
    refused(TcpStream::connect(("127.0.0.1", other)), Errno::ACCESS);
    refused(TcpListener::bind("127.0.0.1:0"), Errno::ACCESS);
    UdpSocket::bind("127.0.0.1:0").unwrap();
}

/// A provider. It ends, by its own process id, when this value is dropped.
struct Running(Child);

impl Running {
    fn start(directory: &Path, command: &mut Command) -> Self {
        let socket = directory.join("kms.sock");
        command.arg(format!("--listen-address={}", socket.display()));
        Self(command.stdout(Stdio::piped()).spawn().unwrap())
    }

    /// Its lines up to the first that contains `text`.
    fn lines_until(&mut self, text: &str) -> Vec<String> {
        let mut lines = Vec::new();
        for line in BufReader::new(self.0.stdout.as_mut().unwrap()).lines() {
            lines.push(line.unwrap());
            if lines.last().unwrap().contains(text) {
                return lines;
            }
        }
        panic!("it ended without {text:?}: {lines:#?}");
    }

    fn threads(&self) -> Vec<PathBuf> {
        let tasks = fs::read_dir(format!("/proc/{}/task", self.0.id())).unwrap();
        tasks.map(|task| task.unwrap().path().join("status")).collect()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        drop((self.0.kill(), self.0.wait()));
    }
}

fn local(directory: &Path) -> Command {
    let key = format!("--local-key-file={}", directory.join("key.json").display());
    assert!(Command::new(BINARY).args(["local", "init", &key]).output().unwrap().status.success());
    let mut command = Command::new(BINARY);
    command.args(["--keeper=local", &key, "--health-port=0", "--metrics-port=0"]);
    command
}

fn vault(address: &str, secret_id: &Path) -> Command {
    let mut command = Command::new(BINARY);
    command.args(["--transit-key=k", "--approle-role-id=r"]);
    command.args(["--health-port=0", "--metrics-port=0"]);
    command.arg(format!("--vault-address={address}"));
    command.arg(format!("--approle-secret-id-path={}", secret_id.display()));
    command
}

#[test]
fn a_served_provider_has_no_privileges_on_any_thread() {
    let directory = tempfile::tempdir().unwrap();
    let mut command = local(directory.path());
    command.arg("--otlp-endpoint=http://127.0.0.1:1");
    let mut provider = Running::start(directory.path(), &mut command);
    let lines = provider.lines_until("\"healthy\"");
    let told: Vec<_> = lines.iter().filter(|line| line.contains("sandbox")).collect();
    assert_eq!(told.len(), 1, "{lines:#?}");
    assert!(told[0].contains("in force: umask 0077, no_new_privs, no capabilities"), "{told:?}");
    let threads = provider.threads();
    // The main thread, those of the log and of the traces, and one that reads files.
    assert!(threads.len() >= 4, "{threads:?}");
    for status in threads {
        assert_unprivileged(&status);
    }
}

#[test]
fn a_served_provider_writes_no_core_and_hides_its_memory_from_its_own_user() {
    const NOBODY: u32 = 65_534;
    if !geteuid().is_root() {
        let text = "SKIPPED: ONLY ROOT CAN START A PROCESS OF ANOTHER USER";
        assert!(std::env::var("CI").as_deref() != Ok("true"), "{text}");
        io::Write::write_all(&mut io::stderr(), text.as_bytes()).unwrap();
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let settings = local(directory.path());
    for path in [directory.path(), &directory.path().join("key.json")] {
        std::os::unix::fs::chown(path, Some(NOBODY), Some(NOBODY)).unwrap();
    }
    // The folder of the build may be closed to other users.
    let program = directory.path().join("vault-kube-kms");
    fs::copy(BINARY, &program).unwrap();
    let mut command = Command::new(program);
    command.args(settings.get_args()).uid(NOBODY);
    let mut provider = Running::start(directory.path(), &mut command);
    provider.lines_until("\"healthy\"");
    let process = PathBuf::from(format!("/proc/{}", provider.0.id()));
    let limits = fs::read_to_string(process.join("limits")).unwrap();
    let core = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap();
    assert!(core.split_whitespace().skip(4).take(2).eq(["0", "0"]), "{core}");
    // The kernel gives these files to root when a process may not be traced (proc(5)).
    assert_eq!(fs::metadata(process.join("mem")).unwrap().uid(), 0);
    assert_eq!(fs::metadata("/proc/self/mem").unwrap().uid(), geteuid().as_raw());
}

#[test]
fn without_the_sandbox_nothing_is_restricted_and_a_warning_says_so() {
    let directory = tempfile::tempdir().unwrap();
    let mut command = local(directory.path());
    command.env("VAULT_KUBE_KMS_NO_SANDBOX", "true");
    let mut provider = Running::start(directory.path(), &mut command);
    let lines = provider.lines_until("\"healthy\"");
    assert!(lines.iter().any(|line| line.contains("\"WARN\"") && line.contains("--no-sandbox")));
    for status in provider.threads() {
        let found = privileges(&status);
        assert!(["NoNewPrivs:0", "Seccomp:0"].iter().all(|line| found.iter().any(|f| f == line)));
    }
}

#[test]
fn check_reports_what_the_kernel_offers() {
    let directory = tempfile::tempdir().unwrap();
    let command = local(directory.path());
    let check = |more: &[&str]| {
        let mut check = Command::new(BINARY);
        let output = check.arg("check").args(command.get_args()).args(more).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    let text = check(&[]);
    assert!(text.contains("  sandbox        the kernel offers "), "{text}");
    let text = check(&["--no-sandbox"]);
    assert!(text.contains("WARN  sandbox        --no-sandbox"), "{text}");
}

/// A lookup of a name opens libraries and files after the start.
#[test]
fn looks_up_host_names_in_the_sandbox() {
    let directory = tempfile::tempdir().unwrap();
    let secret = directory.path().join("id");
    fs::write(&secret, "a-secret-id").unwrap();
    let mut command = vault("https://localhost:1", &secret);
    let mut provider = Running::start(directory.path(), &mut command);
    let lines = provider.lines_until("keeper-unreachable");
    assert!(lines.last().unwrap().contains("refused"), "{lines:#?}");
}

#[test]
fn a_secret_id_whose_directory_appears_later_is_read() {
    let directory = tempfile::tempdir().unwrap();
    let secret = directory.path().join("later/still/id");
    let mut provider = Running::start(directory.path(), &mut vault("https://127.0.0.1:1", &secret));
    provider.lines_until("credential-unreadable");
    fs::create_dir_all(secret.parent().unwrap()).unwrap();
    fs::write(&secret, "a-secret-id").unwrap();
    provider.lines_until("keeper-unreachable");
}

fn not_run() {
    eprintln!("NOT RUN: files and ports, because this kernel has no Landlock");
    assert!(std::env::var_os("CI").is_none(), "CI has Landlock");
}

/// A rule of Landlock holds for a directory, and not for its name.
#[test]
fn reports_a_file_in_a_replaced_directory_with_its_remedy() {
    let directory = tempfile::tempdir().unwrap();
    let place = directory.path().join("place");
    fs::create_dir(&place).unwrap();
    fs::write(place.join("id"), "a-secret-id").unwrap();
    let mut command = vault("https://127.0.0.1:1", &place.join("id"));
    let mut provider = Running::start(directory.path(), &mut command);
    let lines = provider.lines_until("keeper-unreachable");
    let is_restricted = |line: &String| {
        let version = line.split("Landlock ").nth(1);
        version.is_some_and(|version| version.starts_with(|first: char| first.is_ascii_digit()))
    };
    if !lines.iter().any(is_restricted) {
        not_run();
        return;
    }
    fs::rename(&place, directory.path().join("former")).unwrap();
    fs::create_dir(&place).unwrap();
    fs::write(place.join("id"), "another-secret-id").unwrap();
    provider.lines_until("place/id is outside of the sandbox, which admits");
}

#[test]
fn root_keeps_what_it_needs_to_read_a_file_of_another_user() {
    if !geteuid().is_root() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let secret = directory.path().join("id");
    fs::write(&secret, "a-secret-id").unwrap();
    fs::set_permissions(&secret, fs::Permissions::from_mode(0o600)).unwrap();
    std::os::unix::fs::chown(&secret, Some(65_534), Some(65_534)).unwrap();
    let mut provider = Running::start(directory.path(), &mut vault("https://127.0.0.1:1", &secret));
    let lines = provider.lines_until("keeper-unreachable");
    assert!(lines.iter().any(|line| line.contains("CAP_DAC_READ_SEARCH is kept")), "{lines:#?}");
}

/// The watchdog connects to the provider's own socket, which was bound before the sandbox.
#[test]
fn notifies_the_watchdog_over_an_abstract_socket() {
    let directory = tempfile::tempdir().unwrap();
    let notify = directory.path().join("notify");
    let systemd = UnixDatagram::bind(&notify).unwrap();
    systemd.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    let told = || {
        let mut told = [0; 100];
        let length = systemd.recv(&mut told).unwrap();
        String::from_utf8_lossy(&told[..length]).trim().to_owned()
    };
    let mut command = local(directory.path());
    command.env("NOTIFY_SOCKET", &notify).env("WATCHDOG_USEC", "200000");
    command.arg(format!("--listen-address=unix:///@sandbox-test-{}", std::process::id()));
    let mut provider = Running(command.stdout(Stdio::piped()).spawn().unwrap());
    assert_eq!([told(), told(), told()], ["READY=1", "WATCHDOG=1", "WATCHDOG=1"]);
    let pid = rustix::process::Pid::from_child(&provider.0);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    while told() != "STOPPING=1" {}
    assert!(provider.0.wait().unwrap().success());
}
