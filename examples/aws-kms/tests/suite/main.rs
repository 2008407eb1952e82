//! Holds the keeper to its contract, against a server with the API of AWS KMS.

mod contract;
mod refusals;
mod server;
