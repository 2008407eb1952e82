//! Starts the server and makes keys in it.

use std::{
    fs::{self, OpenOptions},
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::TcpStream,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex, OnceLock, PoisonError},
};

use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_kube_kms::{keeper::AwsKek, keys};
use aws_sdk_kms::{
    Client,
    config::{Credentials, ProvideCredentials},
    types::KeySpec,
};
use tempfile::TempDir;
use vault_kube_kms::prelude::ParsedFile;

/// Makes credentials from an access key ID and a secret.
pub fn credentials(id: &str, secret: &str) -> Credentials {
    Credentials::new(id, secret, None, None, "test")
}

/// Returns the only credentials that the server accepts.
fn known() -> Credentials {
    credentials("AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY")
}

/// Builds the server once. Its versions are pinned in `tests/server/go.mod`.
fn program() -> &'static Path {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    PROGRAM.get_or_init(|| {
        let program = Path::new(env!("CARGO_TARGET_TMPDIR")).join("aws-kms-server");
        let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/server");
        let mut go = Command::new("go");
        go.current_dir(sources).args(["build", "-mod=readonly", "-o"]).arg(&program).arg(".");
        let built = go.env("CGO_ENABLED", "0").status().expect("install Go 1.26 for these tests");
        assert!(built.success(), "the server was not built");
        program
    })
}

/// A server with keys, and a list of their ARNs. Dropping it ends the process.
pub struct Server {
    process: Mutex<Child>,
    /// The address of the server, without a scheme.
    pub address: String,
    folder: TempDir,
}

impl Server {
    /// Starts a server and makes the first key.
    pub async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (process, address) = run(folder.path(), "127.0.0.1:0");
        let server = Self { process: Mutex::new(process), address, folder };
        server.append(&server.make_key(KeySpec::SymmetricDefault).await);
        server
    }

    /// Ends the process.
    pub fn stop(&self) {
        end(&mut self.process.lock().unwrap());
    }

    /// Starts the process again, at the same address and with the same keys.
    pub fn start_again(&self) {
        *self.process.lock().unwrap() = run(self.folder.path(), &self.address).0;
    }

    /// Returns the path of the list.
    pub fn list(&self) -> PathBuf {
        self.folder.path().join("keys")
    }

    /// Appends a key to the list.
    pub fn append(&self, arn: &str) {
        let file = OpenOptions::new().create(true).append(true).open(self.list());
        writeln!(file.unwrap(), "{arn}").unwrap();
    }

    /// Makes a key, and returns its ARN.
    pub async fn make_key(&self, spec: KeySpec) -> String {
        let usage = aws_sdk_kms::types::KeyUsageType::EncryptDecrypt;
        let key =
            self.admin().await.create_key().key_spec(spec).key_usage(usage).send().await.unwrap();
        key.key_metadata.unwrap().arn.unwrap()
    }

    /// Returns a client with valid credentials.
    pub async fn admin(&self) -> Client {
        Client::new(&self.config(known()).await)
    }

    /// Makes the keeper with valid credentials.
    pub async fn keeper(&self) -> Arc<AwsKek> {
        self.keeper_with(known()).await
    }

    /// Makes the keeper with these credentials.
    pub async fn keeper_with(&self, credentials: impl ProvideCredentials + 'static) -> Arc<AwsKek> {
        let config = self.config(credentials).await;
        let keys = ParsedFile::open(self.list(), keys::LIST_MAX, keys::parse);
        Arc::new(AwsKek::new(&config, keys.unwrap()))
    }

    /// Returns the ARN of version 1.
    pub fn first(&self) -> String {
        self.arns().swap_remove(0)
    }

    /// Returns the ARNs of all versions.
    pub fn arns(&self) -> Vec<String> {
        fs::read_to_string(self.list()).unwrap().lines().map(str::to_owned).collect()
    }

    async fn config(&self, credentials: impl ProvideCredentials + 'static) -> SdkConfig {
        aws_config::defaults(BehaviorVersion::latest())
            .region(Region::from_static("eu-west-1"))
            .endpoint_url(format!("http://{}", self.address))
            .credentials_provider(credentials)
            .load()
            .await
    }

    /// Makes the server answer each call with this status and code. With the status 0 it answers
    /// nothing, and with `None` it works again.
    pub fn fault(&self, fault: Option<(u16, &str)>) {
        let query = fault.map_or_else(String::new, |(status, code)| format!("{status},{code}"));
        let mut connection = TcpStream::connect(&self.address).unwrap();
        let request = format!("GET /fault?{query} HTTP/1.0\r\nHost: test\r\n\r\n");
        connection.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        connection.read_to_string(&mut answer).unwrap();
        assert!(answer.contains("200 OK"), "{answer}");
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        end(self.process.get_mut().unwrap_or_else(PoisonError::into_inner));
    }
}

/// Ends the process, which ends when its standard input is closed.
fn end(process: &mut Child) {
    drop(process.stdin.take());
    process.wait().unwrap();
}

fn run(folder: &Path, listen: &str) -> (Child, String) {
    let mut command = Command::new(program());
    command.arg("-attached").arg("-listen").arg(listen).arg("-data").arg(folder.join("data"));
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut process = command.spawn().unwrap();
    let mut line = String::new();
    BufReader::new(process.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let address = line.trim().strip_prefix("http://").expect("the server starts").to_owned();
    (process, address)
}
