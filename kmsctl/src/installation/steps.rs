//! The steps of an installation, in the order of `docs/install.md`.

use std::fmt::Write as _;

use serde::Serialize;

use super::{Answers, Begin, ENCRYPTION_CONFIG, Form, SETTINGS_DIRECTORY};

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

const ONCE: &str = "once for the cluster";
const INSTALL_PROGRAM: &str = "install -m 0755 vault-kube-kms /usr/local/bin/vault-kube-kms";
const INSTALL_USER: &str =
    "install -m 0644 2-provider/sysusers.conf /etc/sysusers.d/vault-kube-kms.conf";
const MAKE_USER: &str = "systemd-sysusers vault-kube-kms.conf";
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
             within a minute (--encryption-provider-config-automatic-reload)."
        }
        .to_owned(),
        commands: stage("2-write.yaml", patch),
    });
    steps.push(Step {
        id: StepId::Rewrite,
        title: "Every object is stored again",
        at: ONCE,
        why:
            "Objects from before are still in their old form. This stores each of them again. When \
              it says that nothing is left, no object is in clear text."
                .to_owned(),
        commands: vec![format!(
            "vault-kube-kmsctl rewrite --resource={}",
            answers.resources.join(",")
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

fn keeper(answers: &Answers) -> Step {
    let (why, commands) = if answers.value("keeper") == "local" {
        (
            "The embedded keeper has its key in a file of the node. It serves one node only. Back up \
             the file: without it the data is lost."
                .to_owned(),
            local_key(&answers.value("local-key-file")),
        )
    } else if answers.is_approle() {
        let (mount, key) = key_path(answers);
        (
            "Set VAULT_ADDR and VAULT_TOKEN (an administrator's token) before. The script makes the \
             Transit engine, the key, the policy and the AppRole, and keeps what exists. Each further \
             node gets a secret ID of its own: run it again with another directory."
                .to_owned(),
            vec![format!("MOUNT={mount} KEY={key} 1-keeper/setup.sh credentials")],
        )
    } else {
        let (mount, key) = key_path(answers);
        (
            format!(
                "Set VAULT_ADDR and VAULT_TOKEN (an administrator's token) before. Then give the \
                 policy to the role of the login {}, as docs/authentication.md shows.",
                answers.value("auth-method")
            ),
            vec![
                format!("vault secrets enable -path={mount} transit"),
                format!("vault write -f {mount}/keys/{key} type=aes256-gcm96"),
                "vault policy write vault-kube-kms 1-keeper/policy.hcl".to_owned(),
            ],
        )
    };
    Step {
        id: StepId::Keeper,
        title: "The keeper has the key and the role",
        at: ONCE,
        why,
        commands,
    }
}

/// Returns the commands that make the embedded keeper's key, as the user of the service.
fn local_key(path: &str) -> Vec<String> {
    let directory = path.rsplit_once('/').map_or("", |(directory, _)| directory);
    vec![
        INSTALL_PROGRAM.to_owned(),
        INSTALL_USER.to_owned(),
        MAKE_USER.to_owned(),
        format!("install -d -o vault-kube-kms -g vault-kube-kms -m 0700 {directory}"),
        format!(
            "runuser -u vault-kube-kms -- /usr/local/bin/vault-kube-kms local init \
             --local-key-file={path}"
        ),
    ]
}

/// Returns the mount and the name of the key.
fn key_path(answers: &Answers) -> (String, String) {
    let path = answers.value("vault-key-path");
    path.split_once("/keys/").map_or_else(
        || (answers.value("transit-mount"), answers.value("transit-key")),
        |(mount, key)| (mount.to_owned(), key.to_owned()),
    )
}

/// Returns the files that a node needs in the directory of the settings, as their flags name them.
fn credentials(answers: &Answers) -> Vec<String> {
    let flags = answers.flags.iter();
    let paths =
        flags.filter_map(|(_, value)| Some((value, value.strip_prefix(SETTINGS_DIRECTORY)?)));
    paths.filter(|(_, rest)| rest.starts_with('/')).map(|(path, _)| path.clone()).collect()
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
    let credentials = credentials(answers).into_iter().map(|path| (None, path));
    std::iter::once(settings).chain(credentials).collect()
}

fn provider(answers: &Answers) -> Step {
    let source = |path: &String| {
        let name = path.rsplit('/').next().unwrap_or_default().to_owned();
        // setup.sh calls it so.
        if name == "approle-secret-id" {
            ("secret-id".to_owned(), path.clone())
        } else {
            (name, path.clone())
        }
    };
    let needed: Vec<(String, String)> = credentials(answers).iter().map(source).collect();
    let names: Vec<&str> = needed.iter().map(|(name, _)| name.as_str()).collect();
    let copy = if names.is_empty() {
        String::new()
    } else {
        format!(
            "Copy this directory and the files {} to the node; ca.pem is the keeper's certificate \
             authority. Type the commands where they are. ",
            names.join(", ")
        )
    };
    let (why, commands) = match answers.form {
        Form::StaticPod => {
            let mut commands = vec![
                "install -m 0644 2-provider/tmpfiles.conf /etc/tmpfiles.d/vault-kube-kms.conf"
                    .to_owned(),
                "systemd-tmpfiles --create vault-kube-kms.conf".to_owned(),
                format!("install -d -m 0755 {SETTINGS_DIRECTORY}"),
            ];
            let files = needed.iter();
            commands
                .extend(files.map(|(name, path)| {
                    format!("install -o 65532 -g 65532 -m 0400 {name} {path}")
                }));
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
            let files = needed.iter();
            commands
                .extend(files.map(|(name, path)| {
                    format!("install -o vault-kube-kms -m 0600 {name} {path}")
                }));
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
    let program = match answers.form {
        Form::StaticPod => format!("vault-kube-kms check {}", answers.arguments().join(" ")),
        Form::Systemd => "set -a; . /etc/vault-kube-kms/vault-kube-kms.env; \
                          vault-kube-kms check --listen-address=unix:///run/vault-kube-kms/vault-kube-kms.sock"
            .to_owned(),
    };
    Step {
        id: StepId::Serves,
        title: "The provider works",
        at: EACH,
        why:
            "The provider is ready when its socket exists, and healthy when it has proven its key. \
              `check` names what is wrong, with a remedy."
                .to_owned(),
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
