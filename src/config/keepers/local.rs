//! The embedded keeper: this process holds the key, which it reads from a file.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use super::{KeeperKind, KeeperSettings, Opened, Surroundings};
use crate::{
    adapters::{
        local::{file::KeyFile, keeper::LocalKek},
        system::{clock::SystemClock, sandbox::Needs},
    },
    config::{
        commands::{Command, KeeperCommand, Work},
        flags::{Group, Takes::Value, flag},
        reading::Reading,
    },
    domain::error::KmsError,
    ports::{
        clock::Clock as _,
        finding::{Area, Finding},
        keeper::PlainKeeper,
    },
};

/// The flags of the embedded keeper.
const GROUPS: &[Group] = &[(
    "Embedded keeper (one node)",
    &[flag(
        "local-key-file",
        Value("FILE"),
        "/var/lib/vault-kube-kms/key.json",
        "The embedded keeper's key file",
    )],
)];

/// The commands of the embedded keeper.
const COMMANDS: &[KeeperCommand] = &[
    KeeperCommand {
        command: Command {
            words: "local init",
            usage: "local init [FLAGS]",
            help: "create the embedded keeper's key file",
        },
        read: init,
    },
    KeeperCommand {
        command: Command {
            words: "local rotate",
            usage: "local rotate [FLAGS]",
            help: "add a version to that file",
        },
        read: rotate,
    },
];

/// `--keeper=local`.
pub const LOCAL: KeeperKind =
    KeeperKind::new("local", GROUPS, read).with_commands(COMMANDS).with_dev(dev);

fn read(reading: &mut Reading<'_>) -> Option<Arc<dyn KeeperSettings>> {
    key_file(reading).map(|path| -> Arc<dyn KeeperSettings> { Arc::new(LocalSettings(path)) })
}

fn dev(directory: &Path) -> Result<Arc<dyn KeeperSettings>, KmsError> {
    let path = directory.join("key.json");
    KeyFile::create(&path, SystemClock::new().wall())?;
    Ok(Arc::new(LocalSettings(path)))
}

/// Reads the path of the key file.
fn key_file(reading: &mut Reading<'_>) -> Option<PathBuf> {
    reading.required("local-key-file", |text| Ok(PathBuf::from(text)))
}

fn init(reading: &mut Reading<'_>) -> Option<Work> {
    let path = key_file(reading)?;
    Some(Box::new(move || {
        KeyFile::create(&path, SystemClock::new().wall())?;
        Ok(format!("{}: created with version 1; back it up", path.display()))
    }))
}

fn rotate(reading: &mut Reading<'_>) -> Option<Work> {
    let path = key_file(reading)?;
    Some(Box::new(move || {
        let version = KeyFile::rotate(&path, SystemClock::new().wall())?;
        let path = path.display();
        Ok(format!("{path}: version {version} added; it writes after --rotation-delay"))
    }))
}

/// The path of the key file.
#[derive(Clone, Debug)]
struct LocalSettings(PathBuf);

impl KeeperSettings for LocalSettings {
    fn connection(&self) -> String {
        "local".to_owned()
    }

    fn warnings(&self) -> Vec<Finding> {
        vec![Finding::warn(
            Area::Files,
            format!("--keeper=local: the key is only in {} of this node", self.0.display()),
            "back it up; without this file, encrypted objects cannot be read",
        )]
    }

    fn needs(&self, needs: &mut Needs) {
        needs.read.push(self.0.clone());
    }

    fn open(&self, _: &Surroundings) -> Opened {
        let kek = LocalKek::open(self.0.clone())?;
        let lineage = kek.lineage();
        Ok(PlainKeeper::of(kek, lineage))
    }
}
