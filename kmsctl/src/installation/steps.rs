//! The steps of an installation, in the order of `docs/install.md`.

use std::fmt::Write as _;

use serde::Serialize;

use super::{Answers, Begin, ENCRYPTION_CONFIG, Form, SETTINGS_DIRECTORY, keeper::keeper};

/// A step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum StepId {
    /// Key, policy and role at the keeper.
    Keeper,
    /// The provider's files on the node.
    Provider,
    /// The provider answers.
    Serves,
    /// The API server reads with the provider.
    Read,
    /// The API server writes with the provider.
    Write,
    /// All objects are stored again.
    Rewrite,
    /// The API server refuses clear text.
    Only,
}

/// What to do, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// Which step it is.
    pub id: StepId,
    /// What is true after it.
    pub title: &'static str,
    /// Where to type the commands.
    pub at: &'static str,
    /// What the commands do, and what to watch for.
    pub why: String,
    /// The commands, in this order. They are typed in the directory of the installation.
    pub commands: Vec<String>,
}

pub(super) const ONCE: &str = "once for the cluster";
pub(super) const INSTALL_PROGRAM: &str =
    "install -m 0755 vault-kube-kms /usr/local/bin/vault-kube-kms";
pub(super) const INSTALL_USER: &str =
    "install -m 0644 2-provider/sysusers.conf /etc/sysusers.d/vault-kube-kms.conf";
pub(super) const MAKE_USER: &str = "systemd-sysusers vault-kube-kms.conf";
/// Here are the manifest and the certificates for etcd.
const ONCE_ON_A_NODE: &str = "once for the cluster, on a control-plane node";
const EACH: &str = "on each control-plane node";

/// Returns the steps for `answers`.
#[must_use]
pub fn steps(answers: &Answers) -> Vec<Step> {
    let mut steps = vec![keeper(answers), provider(answers), serves(answers)];
    if answers.begin == Begin::Read {
        steps.push(Step {
            id: StepId::Read,
            title: "The API server can read with the provider",
            at: EACH,
            why: "No API server writes with the provider yet. The flags and mounts of \
                  patches/kube-apiserver0+json.yaml make the API server use the file: with kubeadm, \
                  give the directory to --patches of init, join or upgrade; otherwise add them by \
                  hand. The kubelet starts the API server again when its manifest changes. **Every** \
                  API server must have this stage before one gets the next stage. If another \
                  provider encrypts these resources already, put it in place of `identity` in the \
                  files."
                .to_owned(),
            commands: stage("1-read.yaml", true),
        });
    }
    let patch = answers.begin == Begin::Write;
    steps.push(Step {
        id: StepId::Write,
        title: "The API server writes with the provider",
        at: EACH,
        why: if patch {
            "This is for a cluster with one API server and no data. Make the API server use the file \
             as patches/kube-apiserver0+json.yaml shows."
        } else {
            "New and changed objects are encrypted. The API server reads the changed file by itself \
             (--encryption-provider-config-automatic-reload), and looks for a change once a minute. \
             Wait two minutes after the last node."
        }
        .to_owned(),
        commands: stage("2-write.yaml", patch),
    });
    steps.push(Step {
        id: StepId::Rewrite,
        title: "Every object is stored again",
        at: ONCE_ON_A_NODE,
        why: "Type it at the earliest two minutes after the last API server got the stage above. \
              Objects from before are still in their old form. This stores each of them again, and \
              then reads from etcd how each one is stored. Do not go on before it says that nothing \
              is left and shows what it read from etcd: without etcd it cannot see an object in clear \
              text, and the next step makes such objects unreadable. If the API server has no such \
              manifest, give --etcd-servers and the certificates for etcd instead."
            .to_owned(),
        commands: vec![format!(
            "vault-kube-kmsctl rewrite --resource={} --api-server-manifest={}",
            answers.resources.join(","),
            super::API_SERVER_MANIFEST
        )],
    });
    steps.push(Step {
        id: StepId::Only,
        title: "The API server refuses clear text",
        at: EACH,
        why: "After the restore of a backup of etcd from before the step above, go back to \
              2-write.yaml."
            .to_owned(),
        commands: stage("3-only.yaml", false),
    });
    steps
}

fn stage(file: &str, first: bool) -> Vec<String> {
    let directory = ENCRYPTION_CONFIG.rsplit_once('/').map_or("", |(directory, _)| directory);
    let mut commands = Vec::new();
    if first {
        commands.push(format!("install -d -m 0700 {directory}"));
    }
    commands.push(format!("install -m 0600 3-api-server/{file} {ENCRYPTION_CONFIG}"));
    if first {
        commands.push(format!("$EDITOR {}", super::API_SERVER_MANIFEST));
    }
    commands.push("kubectl get --raw /readyz/kms-providers".to_owned());
    commands
}

/// A file that a node needs in the directory of the settings.
struct Credential {
    /// Its name where it was made.
    name: String,
    /// Its path on the node, as its flag names it.
    path: String,
}

/// Returns the files that a node needs in the directory of the settings, as their flags name them.
fn credentials(answers: &Answers) -> Vec<Credential> {
    let is_there = |path: &str| {
        path.strip_prefix(SETTINGS_DIRECTORY).is_some_and(|rest| rest.starts_with('/'))
    };
    // The provider itself writes this file.
    let is_needed = |flag: &str| flag != "approle-secret-id-cache";
    let flags = answers.flags.iter().filter(|(flag, path)| is_needed(flag) && is_there(path));
    let credential = |(flag, path): (&String, &String)| {
        let name = match flag.as_str() {
            // setup.sh gives these names.
            "approle-role-id-path" => "role-id",
            "approle-secret-id-path" => "secret-id",
            _ => file_name(path),
        };
        Credential { name: name.to_owned(), path: path.clone() }
    };
    flags.map(credential).collect()
}

fn file_name(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or_default()
}

/// Returns the files that the step "provider" puts on a node, each with the file of the installation
/// that it must be equal to. Credentials have none.
#[must_use]
pub fn provider_files(answers: &Answers) -> Vec<(Option<String>, String)> {
    let (from, to) = match answers.form {
        Form::StaticPod => {
            ("2-provider/vault-kube-kms.yaml", "/etc/kubernetes/manifests/vault-kube-kms.yaml")
        }
        Form::Systemd => {
            ("2-provider/vault-kube-kms.env", "/etc/vault-kube-kms/vault-kube-kms.env")
        }
    };
    let settings = (Some(from.to_owned()), to.to_owned());
    let credentials = credentials(answers).into_iter().map(|of| (None, of.path));
    std::iter::once(settings).chain(credentials).collect()
}

fn provider(answers: &Answers) -> Step {
    let needed = credentials(answers);
    let names: Vec<&str> = needed.iter().map(|of| of.name.as_str()).collect();
    let mut copy = String::new();
    if !names.is_empty() {
        let _infallible =
            write!(copy, "Copy this directory and the files {} to the node", names.join(", "));
        let authority = answers.value("tls-ca-file");
        if needed.iter().any(|of| of.path == authority) {
            let name = file_name(&authority);
            let _infallible = write!(copy, "; {name} is the keeper's certificate authority");
        }
        copy.push_str(". Type the commands where they are. ");
    }
    let mut directories: Vec<_> = needed
        .iter()
        .filter_map(|of| of.path.rsplit_once('/'))
        .map(|(directory, _)| directory)
        .filter(|directory| *directory != SETTINGS_DIRECTORY)
        .collect();
    directories.sort_unstable();
    directories.dedup();
    let directories =
        directories.into_iter().map(|directory| format!("install -d -m 0755 {directory}"));
    // The commands that put the credentials on the node, as the user and with the mode of `options`.
    let install = |options: &str| -> Vec<String> {
        let files = needed.iter().map(|of| format!("install {options} {} {}", of.name, of.path));
        directories.chain(files).collect()
    };
    let (why, commands) = match answers.form {
        Form::StaticPod => {
            let mut commands = vec![
                "install -m 0644 2-provider/tmpfiles.conf /etc/tmpfiles.d/vault-kube-kms.conf"
                    .to_owned(),
                "systemd-tmpfiles --create vault-kube-kms.conf".to_owned(),
                format!("install -d -m 0755 {SETTINGS_DIRECTORY}"),
            ];
            commands.extend(install("-o 65532 -g 65532 -m 0400"));
            commands.push(
                "install -m 0600 2-provider/vault-kube-kms.yaml /etc/kubernetes/manifests"
                    .to_owned(),
            );
            ("The kubelet starts the Pod without an API server.", commands)
        }
        Form::Systemd => {
            let mut commands = vec![
                INSTALL_PROGRAM.to_owned(),
                "install -m 0644 2-provider/vault-kube-kms.service /etc/systemd/system".to_owned(),
                INSTALL_USER.to_owned(),
                "install -m 0644 2-provider/tmpfiles.conf /etc/tmpfiles.d/vault-kube-kms.conf"
                    .to_owned(),
                MAKE_USER.to_owned(),
                "systemd-tmpfiles --create vault-kube-kms.conf".to_owned(),
            ];
            commands.extend(install("-o vault-kube-kms -m 0600"));
            commands.push(format!(
                "install -m 0640 -g vault-kube-kms 2-provider/vault-kube-kms.env {SETTINGS_DIRECTORY}"
            ));
            commands.push("systemctl daemon-reload".to_owned());
            commands.push("systemctl enable --now vault-kube-kms".to_owned());
            (
                "With the deb or the rpm of the provider, leave out the first six commands: the \
                 package has these files.",
                commands,
            )
        }
    };
    let why = format!("{copy}{why}");
    Step { id: StepId::Provider, title: "The provider is installed", at: EACH, why, commands }
}

fn serves(answers: &Answers) -> Step {
    let (program, place) = match answers.form {
        Form::StaticPod => (
            format!("vault-kube-kms check {}", answers.arguments().join(" ")),
            " The Pod puts no program on the node: take vault-kube-kms from the archive of the \
             release.",
        ),
        Form::Systemd => (
            "set -a; . /etc/vault-kube-kms/vault-kube-kms.env; \
             vault-kube-kms check --listen-address=unix:///run/vault-kube-kms/vault-kube-kms.sock"
                .to_owned(),
            "",
        ),
    };
    Step {
        id: StepId::Serves,
        title: "The provider works",
        at: EACH,
        why: format!(
            "The provider is ready when its socket exists, and healthy when it has proven its key. \
             `check` names what is wrong, with a remedy.{place}"
        ),
        commands: vec![
            program,
            "curl -s http://127.0.0.1:9090/metrics | grep ^vault_kube_kms_healthy".to_owned(),
        ],
    }
}

/// Returns the text of the file `README.md`: the steps with their commands.
#[must_use]
pub fn readme(answers: &Answers) -> String {
    let mut text = "# Encrypt a cluster with vault-kube-kms\n\n\
        For the person who installs it. `vault-kube-kmsctl init` wrote this directory. Type the commands of \
        each step in this directory, in this order. After each step, type on each node:\n\n\
        ```sh\nvault-kube-kmsctl init --check .\n```\n"
        .to_owned();
    for (index, step) in steps(answers).iter().enumerate() {
        let Step { title, at, why, commands, .. } = step;
        let number = index.saturating_add(1);
        let commands = commands.join("\n");
        let _infallible =
            write!(text, "\n## {number}. {title}\n\nType {at}. {why}\n\n```sh\n{commands}\n```\n");
    }
    text.push_str(
        "\n## Protect and watch it\n\n`4-protect` keeps Pods away from the provider's directories, and has the \
         alerts and the scrape configuration for Prometheus.\n\n```sh\nkubectl apply -f \
         4-protect/admission-policy.yaml\n```\n",
    );
    text
}
