//! The keeper of a comparison, and the plugins over it.

use std::{
    fs,
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::Duration,
};

use super::Plugin;
use crate::run::{Failure, can_run, output, root, run};

/// How often a process is looked at until it has started or ended, and the wait between two looks.
const PROCESS_TRIES: usize = 300;
const PROCESS_WAIT: Duration = Duration::from_millis(100);

/// The names at the keeper.
const KEY: &str = "kubernetes";
const ROLE: &str = "kms";

/// A process, which ends with this value.
pub(crate) struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        drop(self.signal("TERM"));
        for _ in 0..PROCESS_TRIES {
            if let Ok(Some(_status)) = self.0.try_wait() {
                return;
            }
            thread::sleep(PROCESS_WAIT);
        }
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

impl Running {
    /// Sends a signal by its name.
    pub(crate) fn signal(&self, name: &str) -> Result<(), Failure> {
        run(Command::new("kill").args(["-s", name, &self.0.id().to_string()]))
    }

    /// Returns a size of its memory in MiB: `VmRSS`, or `VmHWM` for the largest so far.
    pub(crate) fn memory(&self, kind: &str) -> Result<f64, Failure> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.0.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix(kind)?.strip_prefix(':'));
        let number = line.and_then(|line| line.split_whitespace().next()).ok_or(kind)?;
        Ok(number.parse::<f64>()? / 1024.0)
    }
}

/// An OpenBao in memory with the Transit engine, a key, and a role that may use it.
pub(crate) struct Keeper {
    pub(crate) process: Running,
    bao: PathBuf,
    home: PathBuf,
    address: String,
    root_token: String,
    role_id: String,
    /// A token with the policy of the role, for peers.
    token: String,
}

impl Keeper {
    pub(crate) fn start(bao: &Path, home: &Path, ours: &Path) -> Result<Self, Failure> {
        let free = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        let (address, root_token) = (format!("https://{free}"), "compare".to_owned());
        let mut server = Command::new(bao);
        server.args(["server", "-dev", "-dev-no-store-token", "-dev-tls"]).env("HOME", home);
        server.arg(format!("-dev-tls-cert-dir={}", home.display()));
        server.arg(format!("-dev-listen-address={free}"));
        server.arg(format!("-dev-root-token-id={root_token}"));
        let process = Running(server.stdout(Stdio::null()).stderr(Stdio::null()).spawn()?);
        let (role_id, token) = (String::new(), String::new());
        let bao = bao.to_owned();
        let home = home.to_owned();
        let mut keeper = Self { process, bao, home, address, root_token, role_id, token };
        for _ in 0..PROCESS_TRIES {
            if can_run(&mut keeper.bao(&["status"])) {
                keeper.configure(ours)?;
                return Ok(keeper);
            }
            thread::sleep(PROCESS_WAIT);
        }
        Err("OpenBao does not start".into())
    }

    fn configure(&mut self, ours: &Path) -> Result<(), Failure> {
        let policy = self.home.join("policy.hcl");
        let mut told = Command::new(ours);
        fs::write(
            &policy,
            output(told.arg("policy").arg(format!("--vault-key-path=transit/keys/{KEY}")))?,
        )?;
        let (policy, role) = (policy.display().to_string(), format!("auth/approle/role/{ROLE}"));
        for args in [
            &["secrets", "enable", "transit"][..],
            &["write", "-force", &format!("transit/keys/{KEY}")],
            &["policy", "write", ROLE, &policy],
            &["auth", "enable", "approle"],
            &["write", &role, &format!("token_policies={ROLE}"), "token_ttl=1h"],
        ] {
            output(&mut self.bao(args))?;
        }
        let (id, secret) = (format!("{role}/role-id"), format!("{role}/secret-id"));
        let ask = |args: &[&str]| Ok::<_, Failure>(output(&mut self.bao(args))?.trim().to_owned());
        let role_id = ask(&["read", "-field=role_id", &id])?;
        let secret_id = ask(&["write", "-force", "-field=secret_id", &secret])?;
        let token = ask(&[
            "token",
            "create",
            "-orphan",
            "-period=1h",
            "-field=token",
            &format!("-policy={ROLE}"),
        ])?;
        fs::write(self.home.join("secret-id"), secret_id)?;
        (self.role_id, self.token) = (role_id, token);
        Ok(())
    }

    /// Returns a command of the administrator.
    fn bao(&self, args: &[&str]) -> Command {
        let mut bao = Command::new(&self.bao);
        bao.args(args).env("BAO_ADDR", &self.address).env("BAO_TOKEN", &self.root_token);
        bao.env("BAO_CACERT", self.ca_file()).env("HOME", &self.home);
        bao
    }

    fn ca_file(&self) -> PathBuf {
        self.home.join("vault-ca.pem")
    }

    /// Returns the command of the provider.
    pub(crate) fn command(&self, ours: &Path) -> String {
        format!(
            "{} --listen-address=\"$SOCKET\" --vault-address=\"$VAULT_ADDR\" --tls-ca-file=\"$VAULT_CACERT\" \
             --vault-key-path=transit/keys/{KEY} --approle-role-id={} --approle-secret-id-path={} \
             --metrics-port=0 --health-port=0",
            ours.display(),
            self.role_id,
            self.home.join("secret-id").display()
        )
    }

    /// Starts a plugin on a new socket.
    pub(crate) fn serve(&self, plugin: &Plugin) -> Result<(Running, String), Failure> {
        let path = self.home.join("kms.sock");
        drop(fs::remove_file(&path));
        let socket = format!("unix://{}", path.display());
        let mut shell = Command::new("sh");
        // The shell becomes the plugin, so that its process id is the one to measure.
        shell.arg("-c").arg(format!("exec {}", plugin.command));
        shell
            .env("SOCKET", &socket)
            .env("VAULT_ADDR", &self.address)
            .env("VAULT_TOKEN", &self.token);
        shell.env("VAULT_CACERT", self.ca_file()).current_dir(root());
        let log = fs::File::create(self.home.join("plugin.log"))?;
        shell.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        Ok((Running(shell.spawn()?), socket))
    }
}
