//! The provider as a process of its own.
#![allow(dead_code, reason = "not every user of this file measures")]

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use vault_kube_kms::adapters::grpc::{
    address::SocketAddress,
    client::{self, KmsClient},
    wire::StatusRequest,
};

const START: Duration = Duration::from_secs(60);

/// A running provider; it ends with this value, by its own process id.
pub struct Provider {
    process: Child,
    socket: PathBuf,
    /// The time from exec to the first accepted connection.
    pub accepted_after: Duration,
}

impl Provider {
    /// Starts `binary` with `args`, its socket in `directory`, and waits until that accepts.
    pub async fn start(binary: &str, directory: &Path, args: &[String]) -> Self {
        let socket = directory.join("kms.sock");
        let started = Instant::now();
        let process = Command::new(binary)
            .arg(format!("--listen-address=unix://{}", socket.display()))
            .args(["--health-port=0", "--metrics-port=0", "--zap-log-level=error"])
            .args(args)
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let mut look = tokio::time::interval(Duration::from_micros(500));
        while std::os::unix::net::UnixStream::connect(&socket).is_err() {
            assert!(started.elapsed() < START, "no socket after {START:?}");
            look.tick().await;
        }
        Self { process, socket, accepted_after: started.elapsed() }
    }

    /// Returns a client after Status is ok.
    pub async fn healthy_client(&self) -> KmsClient {
        let address = SocketAddress::File(self.socket.clone());
        let mut client = client::connect(&address).await.unwrap();
        let (started, mut look) = (Instant::now(), tokio::time::interval(Duration::from_millis(5)));
        while let Err(status) = client.status(StatusRequest {}).await {
            assert!(started.elapsed() < START, "{status}");
            look.tick().await;
        }
        client
    }

    /// Returns the resident memory in KiB.
    pub fn resident_kib(&self) -> u64 {
        self.status_kib("VmRSS:")
    }

    /// Returns the peak of the resident memory in KiB.
    pub fn peak_kib(&self) -> u64 {
        self.status_kib("VmHWM:")
    }

    fn status_kib(&self, name: &str) -> u64 {
        let path = format!("/proc/{}/status", self.process.id());
        let status = fs::read_to_string(path).unwrap();
        let line = status.lines().find(|line| line.starts_with(name)).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    }

    /// Returns the processor time of all its threads.
    pub fn processor_time(&self) -> Duration {
        let threads = fs::read_dir(format!("/proc/{}/task", self.process.id())).unwrap();
        let nanos = threads.map(|thread| {
            let text = fs::read_to_string(thread.unwrap().path().join("schedstat")).unwrap();
            text.split_whitespace().next().unwrap().parse::<u64>().unwrap()
        });
        Duration::from_nanos(nanos.sum())
    }
}

impl Drop for Provider {
    fn drop(&mut self) {
        drop((self.process.kill(), self.process.wait()));
    }
}
