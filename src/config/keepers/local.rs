//! The embedded keeper: this process, out of a key file.

use std::{error::Error, path::PathBuf, sync::Arc};

use super::{KeeperKind, KeeperSettings, Surroundings};
use crate::{
    adapters::{local::keeper::LocalKek, system::sandbox::Needs},
    config::{
        flags::{Group, Takes::Value, flag},
        reading::Reading,
    },
    ports::{
        finding::{Area, Finding},
        keeper::Keeper,
    },
};

/// Its flags.
const GROUPS: &[Group] = &[(
    "Embedded keeper (one node)",
    &[flag(
        "local-key-file",
        Value("FILE"),
        "/var/lib/vault-kube-kms/key.json",
        "The embedded keeper's key file",
    )],
)];

/// `--keeper=local`.
#[derive(Clone, Copy, Debug)]
pub struct Local;

impl KeeperKind for Local {
    fn name(&self) -> &'static str {
        "local"
    }

    fn flags(&self) -> &'static [Group] {
        GROUPS
    }

    fn read(&self, reading: &mut Reading<'_>) -> Option<Arc<dyn KeeperSettings>> {
        key_file(reading).map(|path| -> Arc<dyn KeeperSettings> { Arc::new(LocalSettings(path)) })
    }
}

/// Reads where the key file is.
pub(in crate::config) fn key_file(reading: &mut Reading<'_>) -> Option<PathBuf> {
    reading.required("local-key-file", |text| Ok(PathBuf::from(text)))
}

/// The path of the key file.
#[derive(Clone, Debug)]
pub struct LocalSettings(pub PathBuf);

impl KeeperSettings for LocalSettings {
    fn connection(&self) -> String {
        "local".to_owned()
    }

    fn warnings(&self) -> Vec<Finding> {
        vec![Finding::warn(
            Area::Files,
            format!("--keeper=local: the key is in {} of this node alone", self.0.display()),
            "back it up: losing it loses the data",
        )]
    }

    fn needs(&self, needs: &mut Needs) {
        needs.read.push(self.0.clone());
    }

    fn open(&self, _: &Surroundings) -> Result<Arc<dyn Keeper>, Box<dyn Error + Send + Sync>> {
        Ok(Arc::new(LocalKek::open(self.0.clone())?))
    }
}
