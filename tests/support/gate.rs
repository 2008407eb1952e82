//! A relay in front of a server. It simulates an outage for one client, while others use the
//! server.

use std::net::SocketAddr;

use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    sync::watch,
    task::{JoinHandle, JoinSet},
};

/// What the relay does with connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gate {
    /// It passes bytes on.
    Open,
    /// It closes each connection.
    Closed,
    /// It accepts connections and passes nothing on.
    Stuck,
}

/// A relay on a free port. It ends with this value.
pub struct Relay {
    pub address: SocketAddr,
    gate: watch::Sender<Gate>,
    serving: JoinHandle<()>,
}

impl Relay {
    /// Starts a relay to `server`.
    pub async fn to(server: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (address, gate) = (listener.local_addr().unwrap(), watch::Sender::new(Gate::Open));
        let seen = gate.subscribe();
        let serving = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let (client, _) = listener.accept().await.unwrap();
                connections.spawn(pass(client, server, seen.clone()));
                while connections.try_join_next().is_some() {}
            }
        });
        Self { address, gate, serving }
    }

    /// Applies `gate` to old and new connections from now on.
    pub fn set(&self, gate: Gate) {
        self.gate.send_replace(gate);
    }
}

/// Relays one connection until the gate changes or either side closes.
async fn pass(mut client: TcpStream, server: SocketAddr, mut gate: watch::Receiver<Gate>) {
    if *gate.borrow_and_update() == Gate::Open
        && let Ok(mut server) = TcpStream::connect(server).await
    {
        tokio::select! {
            _closed = copy_bidirectional(&mut client, &mut server) => return,
            _ = gate.changed() => (),
        }
    }
    // An error means that the relay has ended.
    drop(gate.wait_for(|gate| *gate != Gate::Stuck).await);
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.serving.abort();
    }
}
