//! The network between one plugin and the cluster, made of pipes in memory.

use std::{fmt, io, net::SocketAddr, sync::Arc, time::Duration};

use futures_util::{FutureExt as _, future::BoxFuture};
use http::Uri;
use hyper::{server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{DuplexStream, duplex},
    time::sleep,
};
use vault_kube_kms::adapters::vault::servers::{BoxError, Dial, KeeperConnection};

use super::{
    NODES,
    cluster::{Cluster, Condition},
    node::respond,
};
use crate::{
    chance::Chance,
    invariants::{CONNECTIONS_MAX, FEW_CONNECTIONS},
    journal::hash,
    plants::Plant,
};

/// The size of a socket's buffers.
const BUFFER: usize = 65_536;

/// A round trip.
const HANDSHAKE: Duration = Duration::from_millis(1);

/// Makes the network of `client`.
#[derive(Clone)]
pub struct Network {
    pub cluster: Arc<Cluster>,
    pub client: usize,
    pub plant: Option<Plant>,
}

/// The target of a connection.
#[derive(Clone, Copy, Debug)]
pub struct Way {
    /// The name to which the client connected.
    pub name: usize,
    /// The node that the name named at that time.
    pub node: usize,
}

impl Network {
    /// Returns the random numbers for one item that is sent to `node`. They depend on the item
    /// and the time, and not on the order of items at one moment, because Tokio's channels wake
    /// waiting tasks in any order.
    pub fn draw(&self, node: usize, what: &[u8]) -> Chance {
        let now = self.cluster.journal.started().elapsed().as_millis() as u64;
        let place = (self.client * NODES + node) as u64;
        Chance::new(self.cluster.seed ^ hash(what) ^ (now << 8) ^ place)
    }

    async fn connect(self, name: usize) -> Result<KeeperConnection, BoxError> {
        sleep(HANDSHAKE).await;
        let mut draw = self.draw(name, b"dial");
        let node = {
            let state = self.cluster.state();
            let forgets = self.plant == Some(Plant::ForgottenMove);
            let resolved = if forgets { name } else { state.resolved(name) };
            state.behind(resolved, &mut draw)
        };
        let way = Way { name, node };
        // The SYN is sent again and again.
        let condition = self.cluster.met(node, |it| it != Condition::Unreachable).await;
        if condition == Condition::Dead {
            return Err(io::Error::from(io::ErrorKind::ConnectionRefused).into());
        }
        if self.plant == Some(Plant::ManyConnections) {
            for _ in 0..20 {
                let (ours, theirs) = duplex(BUFFER);
                std::mem::forget(ours);
                drop(tokio::spawn(self.clone().serve(way, theirs)));
            }
        }
        let (ours, theirs) = duplex(BUFFER);
        drop(tokio::spawn(self.serve(way, theirs)));
        let peer = SocketAddr::from(([127, 0, 0, 1 + node as u8], 8200));
        Ok(KeeperConnection::new(TokioIo::new(ours), Some(peer)))
    }

    /// Serves a connection until either side ends it.
    async fn serve(self, way: Way, stream: DuplexStream) {
        let _open = Open::new(self.clone());
        let service = service_fn(|request| respond(self.clone(), way, request));
        let mut http = http1::Builder::new();
        let serving = http.auto_date_header(false).serve_connection(TokioIo::new(stream), service);
        tokio::select! {
            biased;
            _ = self.cluster.met(way.node, |it| it == Condition::Dead) => (),
            // An error of the service ends the connection without an answer.
            _ = serving => (),
        }
    }
}

impl Dial for Network {
    fn dial(
        &self,
        to: Uri,
        _last: &[SocketAddr],
    ) -> BoxFuture<'static, Result<KeeperConnection, BoxError>> {
        let name = to.host().unwrap().strip_prefix("vault-").unwrap();
        let node = name.parse().unwrap();
        self.clone().connect(node).boxed()
    }
}

/// An open connection, counted.
struct Open(Network);

impl Open {
    fn new(network: Network) -> Self {
        let Network { cluster, client, .. } = &network;
        let open = cluster.state().measures.connected(*client);
        if open > CONNECTIONS_MAX {
            let what = format_args!("plugin {client} has {open} connections");
            cluster.journal.violated(&FEW_CONNECTIONS, what);
        }
        Self(network)
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.cluster.state().measures.disconnected(self.0.client);
    }
}

impl fmt::Debug for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Network of plugin {}", self.client)
    }
}
