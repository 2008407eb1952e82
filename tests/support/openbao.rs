//! A real OpenBao server in dev mode with TLS; or the server that `VAULT_ADDR` names, with the
//! root token in `VAULT_TOKEN` and the authorities in `VAULT_CACERT`.

use std::{
    env, fs,
    io::{self, Write},
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use tokio::time::{Instant, interval, timeout_at};

use super::admin::Admin;

const ROOT_TOKEN: &str = "root-of-the-tests";
const START: Duration = Duration::from_secs(60);

/// A server. It ends, by its own process id, when this value is dropped.
pub struct OpenBao {
    process: Child,
    pub admin: Admin,
    _directory: tempfile::TempDir,
}

impl OpenBao {
    /// Starts a server and waits until it serves. Without the program it prints a warning and
    /// returns `None`; on CI it fails.
    pub async fn start() -> Option<Self> {
        Self::of(program()?, &[], |_| String::new()).await
    }

    /// The same, with more arguments of the server.
    pub async fn start_with_arguments(arguments: &[&str]) -> Option<Self> {
        Self::of(program()?, arguments, |_| String::new()).await
    }

    /// The same, with a configuration beside that of dev mode. It is made from the folder of the
    /// server's certificate, `vault-cert.pem` and `vault-key.pem`.
    pub async fn start_with(configuration: impl Fn(&Path) -> String) -> Option<Self> {
        Self::of(program()?, &[], configuration).await
    }

    /// Starts an OpenBao, on whatever server the suite runs.
    pub async fn start_openbao() -> Option<Self> {
        Self::of(openbao()?, &[], |_| String::new()).await
    }

    async fn of(
        program: PathBuf,
        arguments: &[&str],
        configuration: impl Fn(&Path) -> String,
    ) -> Option<Self> {
        let directory = tempfile::tempdir().unwrap();
        // Another program may take the free port before the server does, so try again.
        for _ in 0..3 {
            let port = free_port();
            let mut arguments: Vec<_> = arguments.iter().map(|&one| one.to_owned()).collect();
            let more = configuration(directory.path());
            if !more.is_empty() {
                let file = directory.path().join("more.hcl");
                fs::write(&file, more).unwrap();
                arguments.push(format!("-config={}", file.display()));
            }
            let process = spawn(&program, &arguments, &directory, port);
            if let Some(server) = Self::ready(process, &directory, port).await {
                let (process, admin) = server;
                return Some(Self { process, admin, _directory: directory });
            }
        }
        panic!("OpenBao did not start within {START:?}, three times");
    }

    async fn ready(
        mut process: Child,
        directory: &tempfile::TempDir,
        port: u16,
    ) -> Option<(Child, Admin)> {
        let ca = directory.path().join("vault-ca.pem");
        let mut look = interval(Duration::from_millis(20));
        let until = Instant::now() + START;
        let admin = timeout_at(until, async {
            loop {
                look.tick().await;
                if process.try_wait().unwrap().is_some() {
                    return None;
                }
                let Ok(ca) = fs::read_to_string(&ca) else { continue };
                // The server may not have written all of it yet.
                if !ca.trim_end().ends_with("-----END CERTIFICATE-----") {
                    continue;
                }
                let ca = ca.into_bytes();
                let admin = Admin::new(&format!("https://127.0.0.1:{port}"), ROOT_TOKEN, Some(ca));
                if admin.is_ready().await {
                    return Some(admin);
                }
            }
        })
        .await;
        if let Ok(Some(admin)) = admin {
            return Some((process, admin));
        }
        drop((process.kill(), process.wait()));
        None
    }
}

impl Drop for OpenBao {
    fn drop(&mut self) {
        drop((self.process.kill(), self.process.wait()));
    }
}

/// Returns the server that the environment names, if it names one.
pub fn named_by_the_environment() -> Option<Admin> {
    let address = env::var("VAULT_ADDR").ok()?;
    let token = env::var("VAULT_TOKEN").expect("VAULT_ADDR needs a root token in VAULT_TOKEN");
    let ca = env::var("VAULT_CACERT").ok().map(|path| fs::read(path).unwrap());
    Some(Admin::new(&address, &token, ca))
}

fn spawn(
    program: &PathBuf,
    arguments: &[String],
    directory: &tempfile::TempDir,
    port: u16,
) -> Child {
    drop(fs::remove_file(directory.path().join("vault-ca.pem")));
    Command::new(program)
        .args(["server", "-dev", "-dev-tls", "-dev-no-store-token"])
        .arg(format!("-dev-tls-cert-dir={}", directory.path().display()))
        .arg(format!("-dev-listen-address=127.0.0.1:{port}"))
        .arg(format!("-dev-root-token-id={ROOT_TOKEN}"))
        .args(arguments)
        .env("HOME", directory.path())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

/// The program of OpenBao, or of the server in `KEEPER_SERVER`, which takes the same arguments.
fn program() -> Option<PathBuf> {
    env::var_os("KEEPER_SERVER").map(PathBuf::from).or_else(openbao)
}

fn openbao() -> Option<PathBuf> {
    let target = env::var_os("CARGO_TARGET_DIR")
        .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("target"), PathBuf::from);
    let program = target.join("tools/bao");
    if program.exists() {
        return Some(program);
    }
    let text = "SKIPPED: NO OPENBAO SERVER; run `cargo xtask tools`";
    assert!(env::var("CI").as_deref() != Ok("true"), "{text}");
    // The test harness does not capture this output.
    drop(writeln!(io::stderr(), "{text}"));
    None
}

pub fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}
