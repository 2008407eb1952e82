//! Makes a token of SoftHSM in a directory of its own, and starts the program with it.

use std::{
    env, fs,
    io::Write as _,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    time::{Duration, Instant},
};

use vault_kube_kms::adapters::grpc::{
    address::SocketAddress,
    client::{self, KmsClient},
    wire::{DecryptRequest, EncryptRequest, EncryptResponse, StatusRequest, StatusResponse},
};

const BINARY: &str = env!("CARGO_BIN_EXE_vault-kube-kms");

/// Is the path of the library in Debian.
pub const MODULE: &str = "/usr/lib/softhsm/libsofthsm2.so";

pub const LABEL: &str = "kms";
pub const PIN: &str = "right-canary";

/// Limits every wait.
pub const WAIT_MAX: Duration = Duration::from_secs(60);

/// Names the configuration of SoftHSM.
pub const CONFIGURATION: &str = "SOFTHSM2_CONF";

/// Is a token with the user PIN [`PIN`] and no key. Dropping it deletes the token.
pub struct Token {
    root: PathBuf,
    _kept: Option<tempfile::TempDir>,
    /// The library for the program.
    module: PathBuf,
}

impl Token {
    /// Makes a token. Prints a warning and returns `None` if SoftHSM or OpenSC is missing.
    pub fn make() -> Option<Self> {
        let tool = |name: &str| Command::new(name).arg("--help").output().is_ok();
        if !Path::new(MODULE).exists() || !tool("softhsm2-util") || !tool("pkcs11-tool") {
            let text = "SKIPPED: SOFTHSM IS MISSING; apt-get install softhsm2 opensc";
            assert!(env::var("CI").as_deref() != Ok("true"), "{text}");
            // This is not captured.
            drop(writeln!(std::io::stderr(), "{text}"));
            return None;
        }
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path().to_owned();
        let token = Self { root, _kept: Some(directory), module: MODULE.into() };
        for name in ["tokens", "secret"] {
            fs::create_dir(token.at(name)).unwrap();
        }
        let text = format!("directories.tokendir = {}\n", token.at("tokens").display());
        fs::write(token.configuration(), text).unwrap();
        token.write_pin(PIN);
        let mut make = token.tool("softhsm2-util");
        make.args([
            "--init-token",
            "--free",
            "--label",
            LABEL,
            "--so-pin",
            "12345678",
            "--pin",
            PIN,
        ]);
        succeeds(&mut make);
        Some(token)
    }

    /// Makes a token behind the module of `stand_in.c`, which misbehaves on request.
    pub fn behind_a_stand_in() -> Option<Self> {
        let mut token = Self::make()?;
        let (source, module) = (
            concat!(env!("CARGO_MANIFEST_DIR"), "/tests/pkcs11/stand_in.c"),
            token.at("module.so"),
        );
        let mut compiler = Command::new("cc");
        succeeds(compiler.args(["-shared", "-fPIC", "-O1", "-o"]).arg(&module).arg(source));
        token.module = module;
        Some(token)
    }

    /// Returns the token that another process made in `root`, behind `module`.
    pub fn attach(root: PathBuf, module: PathBuf) -> Self {
        Self { root, _kept: None, module }
    }

    /// Returns a path in the directory of the test.
    pub fn at(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    /// Returns the library for the program.
    pub fn module(&self) -> &Path {
        &self.module
    }

    pub fn configuration(&self) -> PathBuf {
        self.at("softhsm2.conf")
    }

    /// Replaces the PIN file, in one step.
    pub fn write_pin(&self, pin: &str) {
        let draft = self.at("secret/pin.new");
        let mut file = fs::OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&draft)
            .unwrap();
        writeln!(file, "{pin}").unwrap();
        fs::rename(draft, self.pin_file()).unwrap();
    }

    /// Returns the file of the PIN. It has a directory of its own.
    pub fn pin_file(&self) -> PathBuf {
        self.at("secret/pin")
    }

    /// Returns the directory of the token.
    pub fn files(&self) -> PathBuf {
        fs::read_dir(self.at("tokens")).unwrap().next().unwrap().unwrap().path()
    }

    /// Sets the variables that SoftHSM and the stand-in read.
    pub fn prepare(&self, command: &mut Command) {
        command
            .env(CONFIGURATION, self.configuration())
            .env("STAND_IN_FOR", MODULE)
            .env("STAND_IN_DIRECTORY", &self.root);
    }

    /// Makes a command of SoftHSM or OpenSC for the token.
    pub fn tool(&self, name: &str) -> Command {
        let mut command = Command::new(name);
        self.prepare(&mut command);
        command
    }

    /// Runs `pkcs11-tool` with the token, logged in.
    pub fn tool_logged_in(&self, args: &[&str]) -> Output {
        let mut tool = self.tool("pkcs11-tool");
        tool.args(["--module", MODULE, "--token-label", LABEL, "--login", "--pin", PIN]).args(args);
        succeeds(&mut tool)
    }

    /// Returns the `CKA_ID` of the last object, in hex.
    pub fn last_id(&self) -> String {
        let listed = String::from_utf8(self.tool_logged_in(&["--list-objects"]).stdout).unwrap();
        let id = listed.lines().rfind(|line| line.contains("ID:")).unwrap();
        id.trim().rsplit(' ').next().unwrap().to_owned()
    }

    /// Returns whether the token reports a wrong PIN since the last login.
    pub fn has_fewer_tries(&self) -> bool {
        let mut tool = self.tool("pkcs11-tool");
        let listed = succeeds(tool.args(["--module", MODULE, "--list-token-slots"]));
        String::from_utf8(listed.stdout).unwrap().contains("user PIN count low")
    }

    /// Returns the flags that name library, token and PIN.
    pub fn flags(&self) -> Vec<String> {
        vec![
            format!("--pkcs11-module={}", self.module.display()),
            format!("--pkcs11-token-label={LABEL}"),
            format!("--pkcs11-pin-file={}", self.pin_file().display()),
        ]
    }

    /// Makes a command of the program for the token, with these words and flags.
    pub fn program(&self, words: &[&str], flags: &[&str]) -> Command {
        let mut command = Command::new(BINARY);
        command.args(words).args(self.flags()).args(flags);
        self.prepare(&mut command);
        command
    }

    /// Makes the key.
    pub fn init(&self) {
        succeeds(&mut self.program(&["pkcs11", "init"], &[]));
    }

    /// Adds a version.
    pub fn rotate(&self) {
        succeeds(&mut self.program(&["pkcs11", "rotate"], &[]));
    }

    /// Counts the lines `line` that the stand-in wrote.
    pub fn calls(&self, line: &str) -> usize {
        let calls = fs::read_to_string(self.at("calls")).unwrap_or_default();
        calls.lines().filter(|call| *call == line).count()
    }

    /// Sets or clears a switch of the stand-in.
    pub fn switch(&self, name: &str, on: bool) {
        if on {
            fs::write(self.at(name), "").unwrap();
        } else {
            fs::remove_file(self.at(name)).unwrap();
        }
    }

    /// Starts the program in the sandbox, and waits until its socket accepts.
    pub async fn serve(&self, flags: &[&str]) -> Served {
        let needs = format!("--pkcs11-needs={}", self.root.display());
        self.serve_with(&[&[needs.as_str()], flags].concat()).await
    }

    /// Starts it without `--pkcs11-needs`.
    pub async fn serve_with(&self, flags: &[&str]) -> Served {
        let socket = self.at("run/kms.sock");
        fs::create_dir_all(self.at("run")).unwrap();
        let mut command = self.program(&["serve"], &["--keeper=pkcs11"]);
        command
            .arg(format!("--listen-address=unix://{}", socket.display()))
            .args(["--health-port=0", "--metrics-port=0"])
            .args(flags)
            .stdout(fs::File::create(self.at("log")).unwrap());
        let process = command.spawn().unwrap();
        let served = Served { process, socket, log: self.at("log") };
        until("the socket accepts", async || {
            std::os::unix::net::UnixStream::connect(&served.socket).is_ok()
        })
        .await;
        served
    }
}

/// Runs `command`, which must succeed.
pub fn succeeds(command: &mut Command) -> Output {
    let output = command.stdin(Stdio::null()).output().unwrap();
    let [out, err] = [&output.stdout, &output.stderr].map(|text| String::from_utf8_lossy(text));
    assert!(output.status.success(), "{command:?}: {out}{err}");
    output
}

/// Waits until `holds`.
pub async fn until(what: &str, holds: impl AsyncFn() -> bool) {
    let (started, mut look) = (Instant::now(), tokio::time::interval(Duration::from_millis(20)));
    while !holds().await {
        assert!(started.elapsed() < WAIT_MAX, "not within {WAIT_MAX:?}: {what}");
        look.tick().await;
    }
}

/// Is a running program. Dropping it ends the process by its own id.
pub struct Served {
    process: Child,
    socket: PathBuf,
    log: PathBuf,
}

impl Served {
    pub async fn client(&self) -> KmsClient {
        client::connect(&SocketAddress::File(self.socket.clone())).await.unwrap()
    }

    /// Waits until Status answers `holds`, which is given its text: `ok`, or the error.
    pub async fn says(&self, what: &str, holds: impl Fn(&str) -> bool) {
        until(what, async || holds(&health(&self.client().await.status(StatusRequest {}).await)))
            .await;
    }

    pub async fn is_healthy(&self) {
        self.says("Status is ok", |text| text == "ok").await;
    }

    /// Returns its log.
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap()
    }

    /// Sends SIGHUP.
    pub fn hang_up(&self) {
        let pid = rustix::process::Pid::from_child(&self.process);
        rustix::process::kill_process(pid, rustix::process::Signal::HUP).unwrap();
    }

    /// Sends SIGTERM, and returns the exit code.
    pub fn terminate(mut self) -> Option<i32> {
        let pid = rustix::process::Pid::from_child(&self.process);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        self.process.wait().unwrap().code()
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        drop((self.process.kill(), self.process.wait()));
    }
}

fn health(answer: &Result<tonic::Response<StatusResponse>, tonic::Status>) -> String {
    match answer {
        Ok(status) => status.get_ref().healthz.clone(),
        Err(status) => status.message().to_owned(),
    }
}

/// Wraps `seed`.
pub async fn encrypt(
    client: &mut KmsClient,
    seed: &[u8],
) -> Result<EncryptResponse, tonic::Status> {
    let request = EncryptRequest { plaintext: seed.to_vec(), uid: "u".to_owned() };
    client.encrypt(request).await.map(tonic::Response::into_inner)
}

/// Unwraps what [`encrypt`] gave.
pub async fn decrypt(
    client: &mut KmsClient,
    wrapped: &EncryptResponse,
) -> Result<Vec<u8>, tonic::Status> {
    let request = DecryptRequest {
        ciphertext: wrapped.ciphertext.clone(),
        uid: "u".to_owned(),
        key_id: wrapped.key_id.clone(),
        annotations: wrapped.annotations.clone(),
    };
    client.decrypt(request).await.map(|answer| answer.into_inner().plaintext.to_vec())
}
