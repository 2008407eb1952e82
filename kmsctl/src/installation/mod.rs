//! A new installation: from the answers of an operator to its files, and the steps in their order.

mod files;
mod keeper;
mod progress;
mod steps;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use vault_kube_kms::config::{
    catalogue::Catalogue,
    settings::{self, Settings},
    sources::Sources,
};

use crate::domain::problem::Problem;

pub use files::{File, files};
pub use progress::{Facts, Known, Progress, State, Status, next, progress};
pub use steps::{Step, StepId, provider_files, readme, steps};

/// The directory of credentials and settings on a node.
pub const SETTINGS_DIRECTORY: &str = "/etc/vault-kube-kms";

/// The directory of the socket on a node.
pub const SOCKET_DIRECTORY: &str = "/run/vault-kube-kms";

/// The socket, as the files of `deploy/` name it.
pub const SOCKET: &str = "/run/vault-kube-kms/vault-kube-kms.sock";

/// The `EncryptionConfiguration` on a node, as the files of `deploy/kubeadm` name it.
pub const ENCRYPTION_CONFIG: &str = "/etc/kubernetes/encryption/encryption-config.yaml";

/// The manifest of kube-apiserver on a node of kubeadm.
pub const API_SERVER_MANIFEST: &str = "/etc/kubernetes/manifests/kube-apiserver.yaml";

/// How the provider runs on a control-plane node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Form {
    /// A static Pod.
    StaticPod,
    /// A service of systemd.
    Systemd,
}

/// The first stage of the `EncryptionConfiguration`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Begin {
    /// Every API server can read with the provider before any writes with it.
    Read,
    /// For a cluster with one API server and no data.
    Write,
}

/// What the operator wants. Contains no secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Answers {
    /// How the provider runs.
    pub form: Form,
    /// The flags of the provider, without dashes. Flags with their default value may be left out.
    pub flags: BTreeMap<String, String>,
    /// The image of the static Pod. `None` leaves the name that `deploy/` has.
    pub image: Option<String>,
    /// The resources to encrypt, as the `EncryptionConfiguration` names them.
    pub resources: Vec<String>,
    /// The first stage.
    pub begin: Begin,
}

impl Answers {
    /// Returns answers with the flags that the form and the login need, unless `flags` has them.
    #[must_use]
    pub fn completed(mut self) -> Self {
        let secret_id = match self.form {
            Form::StaticPod => "secret-id",
            Form::Systemd => "approle-secret-id",
        };
        let path = |name: &str| format!("{SETTINGS_DIRECTORY}/{name}");
        if self.is_approle() {
            if !self.flags.contains_key("approle-role-id") {
                self.flags.entry("approle-role-id-path".into()).or_insert_with(|| path("role-id"));
            }
            self.flags.entry("approle-secret-id-path".into()).or_insert_with(|| path(secret_id));
        }
        self
    }

    /// Returns whether the provider logs in to Vault with an AppRole.
    #[must_use]
    pub fn is_approle(&self) -> bool {
        self.value("keeper") == "vault" && self.value("auth-method") == "approle"
    }

    /// Returns whether `setup.sh` can make all that the keeper needs. It makes key and role in one
    /// namespace.
    #[must_use]
    pub fn has_script(&self) -> bool {
        self.is_approle() && self.namespace() == self.auth_namespace()
    }

    /// Returns the namespace of the key. The root namespace is the empty text.
    fn namespace(&self) -> String {
        namespace(&self.value("vault-namespace"))
    }

    /// Returns the namespace of the login and of its policy. The root namespace is the empty text.
    fn auth_namespace(&self) -> String {
        match self.value("vault-auth-namespace").as_str() {
            "" => self.namespace(),
            given => namespace(given),
        }
    }

    /// Returns the value of a flag of the provider: the answer, or the default.
    #[must_use]
    pub fn value(&self, flag: &str) -> String {
        let default =
            || Catalogue::built_in().find(flag).map_or("", |flag| flag.default).to_owned();
        self.flags.get(flag).cloned().unwrap_or_else(default)
    }

    /// Returns the command line of the provider, without the program's name.
    #[must_use]
    pub fn arguments(&self) -> Vec<String> {
        let mut all = vec![format!("--listen-address=unix://{SOCKET}")];
        all.extend(self.flags.iter().map(|(name, value)| format!("--{name}={value}")));
        if self.form == Form::StaticPod && !self.flags.contains_key("health-address") {
            all.push("--health-address=127.0.0.1".to_owned());
        }
        all
    }

    /// Returns the flag that is missing or wrong, and why, in the provider's words. `None` when the
    /// provider accepts all, and a policy can give it access to the key.
    #[must_use]
    pub fn wrong_flag(&self) -> Option<(String, String)> {
        let sources = Sources::collect(&self.arguments(), []);
        let without_policy = || {
            let is_needed = self.value("keeper") == "vault";
            is_needed.then(|| settings::policy(&sources).err()).flatten()
        };
        let errors = Settings::read(&sources).err().or_else(without_policy)?;
        let error = errors.first()?;
        Some((error.flag.clone(), error.to_string()))
    }

    /// Checks that the installation can work.
    ///
    /// # Errors
    /// - `answer-wrong`: the provider does not accept a flag.
    /// - `resource-wrong`: a resource is not one that an `EncryptionConfiguration` can name.
    /// - `path-elsewhere`: a file that the provider needs is not in a directory that it sees.
    pub fn check(&self) -> Result<(), Problem> {
        if let Some((flag, why)) = self.wrong_flag() {
            let remedy =
                format!("give it with --set {flag}=VALUE; vault-kube-kms --help explains it");
            return Err(Problem::new("answer-wrong", why, remedy));
        }
        let image_name = "image".to_owned();
        for (name, value) in
            self.flags.iter().chain(self.image.iter().map(|image| (&image_name, image)))
        {
            // The values stand in YAML, in files of variables and in commands.
            let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=,@+%[]~".contains(c);
            if let Some(c) = value.chars().find(|c| !plain(*c)) {
                let cause = format!("the value of {name} has the character {c:?}");
                return Err(Problem::new("answer-wrong", cause, "write it by hand in the files"));
            }
        }
        let is_name = |name: &String| {
            !name.is_empty()
                && name
                    .chars()
                    .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || ".-".contains(c))
        };
        if self.resources.is_empty() || !self.resources.iter().all(is_name) {
            return Err(Problem::new(
                "resource-wrong",
                "the resources are not names such as secrets or widgets.example.com",
                "name them with --resources=secrets,configmaps",
            ));
        }
        if self.value("auth-method") == "kubernetes"
            && !self.flags.contains_key("kubernetes-jwt-path")
        {
            return Err(Problem::new(
                "path-elsewhere",
                "a static Pod and a service have no token of a service account",
                "give the file of a token of another cluster with --set kubernetes-jwt-path=PATH, or \
                 choose another --auth-method",
            ));
        }
        match self.form {
            Form::StaticPod => self.check_paths(),
            Form::Systemd => Ok(()),
        }
    }

    /// A static Pod sees two directories of its node.
    fn check_paths(&self) -> Result<(), Problem> {
        let sees = |path: &str| {
            [SETTINGS_DIRECTORY, SOCKET_DIRECTORY].iter().any(|directory| {
                path.strip_prefix(directory).is_some_and(|rest| rest.starts_with('/'))
            })
        };
        if self.value("keeper") == "local" {
            return Err(Problem::new(
                "path-elsewhere",
                "the static Pod has no place to keep the embedded keeper's key",
                "choose --form=systemd",
            ));
        }
        let paths = self
            .flags
            .iter()
            .map(|(name, value)| (name, value.strip_prefix("unix://").unwrap_or(value)));
        for (name, path) in paths.filter(|(_, path)| path.starts_with('/')) {
            if !sees(path) {
                return Err(Problem::new(
                    "path-elsewhere",
                    format!("--{name}={path} is not in a directory that the static Pod mounts"),
                    format!("put the file below {SETTINGS_DIRECTORY}, or choose --form=systemd"),
                ));
            }
        }
        Ok(())
    }

    /// Returns the policy that the role needs, or `None` for a keeper without policies.
    #[must_use]
    pub fn policy(&self) -> Option<String> {
        if self.value("keeper") != "vault" {
            return None;
        }
        settings::policy(&Sources::collect(&self.arguments(), [])).ok()
    }
}

/// Returns a namespace in the form in which the provider sends it.
fn namespace(text: &str) -> String {
    match text.trim_matches('/') {
        "root" => String::new(),
        name => name.to_owned(),
    }
}
