//! Re-exports what the author of a keeper needs: `use vault_kube_kms::prelude::*;`.

pub use async_trait::async_trait;
pub use http::Uri;

pub use crate::{
    adapters::system::{parsed_file::ParsedFile, sandbox::Needs, watched_file::WatchedFile},
    cli::program::Program,
    config::{
        flags::{Flag, Group, Takes, flag},
        keepers::{KeeperKind, KeeperSettings, Opened, Surroundings},
        reading::Reading,
    },
    domain::{
        envelope::{AssociatedData, Ciphertext},
        error::{Code, KmsError},
        key::{Fingerprint, KekSnapshot, KekVersion, KeyWarning, VersionIdentity},
        key_id::Lineage,
        secret::Plaintext,
        time::{Monotonic, UnixTime},
    },
    ports::{
        abilities::Abilities,
        clock::Clock,
        file::TextFile,
        finding::{Area, Finding, Report},
        keeper::{Keeper, KeeperView, PlainKeeper, Task},
        kek::{Kek, Unwrap, Wrapped},
    },
};
