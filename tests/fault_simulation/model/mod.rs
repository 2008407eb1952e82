//! A model of a Vault cluster: three nodes, a leader among them, one Transit key and one AppRole
//! role. It answers as `vault-http.md`'s servers were observed to.

pub mod auth;
pub mod cluster;
pub mod measures;
pub mod network;
mod node;
pub mod proxy;
mod transit;

/// The nodes of the cluster.
pub const NODES: usize = 3;

/// The address of node `index`.
pub fn address(index: usize) -> String {
    format!("http://vault-{index}:8200")
}
