//! A model of a Vault cluster: three nodes with one leader, one Transit key and one AppRole role.
//! It answers as real servers were observed to.

pub mod auth;
pub mod cluster;
pub mod measures;
pub mod network;
mod node;
pub mod proxy;
mod transit;

/// The nodes of the cluster.
pub const NODES: usize = 3;

/// Returns the address of node `index`.
pub fn address(index: usize) -> String {
    format!("http://vault-{index}:8200")
}
