//! How far an installation is on one node.

use std::{fmt::Write as _, path::Path};

use k8s_openapi::api::core::v1::Pod;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::Value;

use super::{
    Answers, ENCRYPTION_CONFIG, SOCKET, SOCKET_DIRECTORY,
    steps::{StepId, provider_files, steps},
};
use crate::domain::problem::another_form;

/// A fact about the node, or why it is not known.
pub type Known<T> = Result<T, String>;

/// The answer of the provider to Status.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// `ok`, or what is wrong.
    pub healthz: String,
    /// The key id that writes.
    pub key_id: String,
}

/// What was found on the node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    /// The files of the provider that are missing or differ from those of the installation.
    pub wrong_files: Known<Vec<String>>,
    /// The answer to Status. The inner error says why there is none.
    pub status: Result<Status, String>,
    /// The manifest of kube-apiserver.
    pub manifest: Known<String>,
    /// The `EncryptionConfiguration`. `None` when the file does not exist.
    pub encryption_config: Known<Option<String>>,
    /// Whether the API server says that its KMS providers work; otherwise its answer.
    pub api_server: Known<Result<(), String>>,
}

/// Whether a step is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// It is done.
    Done,
    /// It is not done.
    NotDone,
    /// This machine does not show it.
    Unknown,
}

/// How far one step is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Progress {
    /// The step.
    pub step: StepId,
    /// What is true after it.
    pub title: &'static str,
    /// Whether it is done.
    pub state: State,
    /// Why.
    pub why: String,
    /// The commands of the step.
    pub commands: Vec<String>,
}

/// Returns how far each step is, in their order.
#[must_use]
pub fn progress(answers: &Answers, facts: &Facts) -> Vec<Progress> {
    let reaches = stage(answers, facts);
    let all = steps(answers).into_iter().map(|step| {
        let (state, why) = match step.id {
            StepId::Keeper => keeper(answers, facts),
            StepId::Provider => match &facts.wrong_files {
                Ok(wrong) if wrong.is_empty() => (State::Done, "its files are in place".to_owned()),
                Ok(wrong) => {
                    (State::NotDone, format!("missing or different: {}", wrong.join(", ")))
                }
                Err(why) => (State::Unknown, why.clone()),
            },
            StepId::Serves => serves(facts),
            StepId::Read => reached(&reaches, Stage::Read, facts),
            StepId::Write => reached(&reaches, Stage::Write, facts),
            StepId::Rewrite => rewritten(&reaches),
            StepId::Only => reached(&reaches, Stage::Only, facts),
        };
        let mut commands = step.commands;
        if step.id == StepId::Rewrite {
            demand_key_id(facts, &mut commands);
        }
        Progress { step: step.id, title: step.title, state, why, commands }
    });
    all.collect()
}

/// Lets the command end only when every object is under the key id that this node writes.
fn demand_key_id(facts: &Facts, commands: &mut [String]) {
    let Ok(Status { key_id, .. }) = &facts.status else { return };
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_.:".contains(c);
    if let [command] = commands
        && !key_id.is_empty()
        && key_id.chars().all(plain)
    {
        let _infallible = write!(command, " --until-key-id={key_id}");
    }
}

/// Returns the step to do next. `None` when all are done.
#[must_use]
pub fn next(progress: &[Progress]) -> Option<&Progress> {
    // Clear text must not be refused before it is known that no object is in clear text.
    let due = |of: &&Progress| {
        of.state == State::NotDone || (of.state == State::Unknown && of.step == StepId::Rewrite)
    };
    let not_done = || progress.iter().find(|of| of.state != State::Done);
    progress.iter().find(due).or_else(not_done)
}

fn keeper(answers: &Answers, facts: &Facts) -> (State, String) {
    if let Ok(Status { healthz, key_id }) = &facts.status
        && healthz == "ok"
    {
        return (State::Done, format!("the provider has proven the key: {key_id}"));
    }
    let needed = provider_files(answers).into_iter().filter(|(from, _)| from.is_none());
    let needed: Vec<String> = needed.map(|(_, path)| path).collect();
    match &facts.wrong_files {
        Ok(wrong) if needed.iter().any(|path| wrong.contains(path)) => {
            (State::NotDone, "its credentials are not on this node".to_owned())
        }
        _ => (State::Unknown, "only a provider that works shows it".to_owned()),
    }
}

fn serves(facts: &Facts) -> (State, String) {
    match &facts.status {
        Ok(status) if status.healthz == "ok" => (State::Done, "Status is ok".to_owned()),
        Ok(status) => (State::NotDone, format!("Status is: {}", status.healthz)),
        Err(why) => (State::NotDone, format!("no answer at {SOCKET}: {why}")),
    }
}

fn rewritten(stage: &Known<(Stage, String)>) -> (State, String) {
    match stage {
        Ok((Stage::Only, _)) => {
            (State::Done, "the API server refuses clear text since then".to_owned())
        }
        Ok((Stage::Write, _)) => {
            (State::Unknown, "only etcd shows it; it is safe to type it again".to_owned())
        }
        Ok(_) => (State::NotDone, "the API server does not write with the provider".to_owned()),
        Err(why) => (State::Unknown, why.clone()),
    }
}

/// What the API server does with the provider, by its configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Stage {
    Absent,
    Read,
    Write,
    Only,
}

fn reached(stage: &Known<(Stage, String)>, wanted: Stage, facts: &Facts) -> (State, String) {
    match (stage, &facts.api_server) {
        (Err(why), _) => (State::Unknown, why.clone()),
        (Ok((stage, why)), _) if *stage < wanted => (State::NotDone, why.clone()),
        (Ok(_), Ok(Err(answer))) => (State::NotDone, format!("the API server says: {answer}")),
        (Ok((_, why)), Ok(Ok(()))) => (State::Done, format!("{why}; its KMS providers are ready")),
        // A file alone does not show that the API server has read it (kubernetes/kubernetes#112001).
        (Ok((_, why)), Err(unknown)) => {
            (State::Done, format!("{why}; whether the API server has read it: {unknown}"))
        }
    }
}

fn stage(answers: &Answers, facts: &Facts) -> Known<(Stage, String)> {
    let manifest = facts.manifest.as_ref().map_err(Clone::clone)?;
    if let Some(missing) = not_in_manifest(manifest)? {
        return Ok((Stage::Absent, missing));
    }
    match facts.encryption_config.as_ref().map_err(Clone::clone)? {
        None => Ok((Stage::Absent, format!("{ENCRYPTION_CONFIG} does not exist"))),
        Some(text) => configured(text, &answers.resources),
    }
}

/// Returns what the manifest of the API server lacks.
fn not_in_manifest(text: &str) -> Known<Option<String>> {
    let pod: Pod =
        yaml(text).map_err(|why| format!("the manifest of kube-apiserver is not a Pod: {why}"))?;
    let spec = pod.spec.ok_or("the manifest of kube-apiserver has no spec")?;
    let volumes = spec.volumes.unwrap_or_default();
    let container = spec.containers.into_iter().next();
    let container = container.ok_or("the manifest of kube-apiserver has no container")?;
    let words = container.command.unwrap_or_default().into_iter();
    let words: Vec<String> = words.chain(container.args.unwrap_or_default()).collect();
    let flag = words.iter().find_map(|word| word.strip_prefix("--encryption-provider-config="));
    match flag {
        None => return Ok(Some("the API server has no --encryption-provider-config".to_owned())),
        Some(path) if path != ENCRYPTION_CONFIG => {
            return Ok(Some(format!(
                "the API server reads {path} and not {ENCRYPTION_CONFIG}; change one of them"
            )));
        }
        Some(_) => {}
    }
    let directory = ENCRYPTION_CONFIG.rsplit_once('/').map_or("", |(directory, _)| directory);
    let mounts = container.volume_mounts.unwrap_or_default();
    for needed in [directory, SOCKET_DIRECTORY] {
        let mount = mounts.iter().find(|mount| {
            let inside = Path::new(needed).starts_with(&mount.mount_path);
            inside || Path::new(&mount.mount_path).starts_with(needed)
        });
        let Some(mount) = mount else {
            return Ok(Some(format!("the API server does not mount {needed}")));
        };
        let volume = volumes.iter().find(|volume| volume.name == mount.name);
        let host = volume.and_then(|volume| volume.host_path.as_ref());
        let kind = host.and_then(|host| host.type_.as_deref()).unwrap_or_default();
        let is_socket = Path::new(&mount.mount_path) == Path::new(SOCKET);
        if is_socket || ["Socket", "File", "FileOrCreate"].contains(&kind) {
            return Ok(Some(format!(
                "the API server mounts {} itself; a replaced file or socket is never seen: mount the \
                 directory {needed}",
                mount.mount_path
            )));
        }
    }
    Ok(None)
}

#[derive(Deserialize)]
struct EncryptionConfig {
    kind: String,
    resources: Vec<Rule>,
}

#[derive(Deserialize)]
struct Rule {
    resources: Vec<String>,
    providers: Vec<Value>,
}

fn yaml<T: DeserializeOwned>(text: &str) -> Known<T> {
    serde_saphyr::from_str(text)
        .map_err(|error| another_form(error.location().map(|at| (at.line(), at.column()))))
}

/// Returns the lowest stage of `resources`, and its reason.
fn configured(text: &str, resources: &[String]) -> Known<(Stage, String)> {
    let config: EncryptionConfig = yaml(text)
        .map_err(|why| format!("{ENCRYPTION_CONFIG} is not an EncryptionConfiguration: {why}"))?;
    if config.kind != "EncryptionConfiguration" {
        return Err(format!("{ENCRYPTION_CONFIG} is not an EncryptionConfiguration"));
    }
    let stages = resources.iter().map(|resource| {
        let rule = config
            .resources
            .iter()
            .find(|rule| rule.resources.iter().any(|pattern| covers(pattern, resource)));
        let Some(rule) = rule else {
            return (Stage::Absent, format!("no rule names {resource}"));
        };
        let endpoint = |provider: &Value| {
            provider.pointer("/kms/endpoint").and_then(Value::as_str)
                == Some(&format!("unix://{SOCKET}"))
        };
        match (rule.providers.iter().position(endpoint), rule.providers.len()) {
            (None, _) => {
                (Stage::Absent, format!("no provider of {resource} has the socket {SOCKET}"))
            }
            (Some(0), 1) => (Stage::Only, format!("the provider is the only one of {resource}")),
            (Some(0), _) => (Stage::Write, format!("the provider is the first one of {resource}")),
            (Some(_), _) => {
                (Stage::Read, format!("the provider reads {resource}, the one before it writes"))
            }
        }
    });
    stages.min_by_key(|(stage, _)| *stage).ok_or_else(|| "no resource is named".to_owned())
}

/// Returns whether a pattern of an `EncryptionConfiguration` covers a resource, such as
/// `widgets.example.com`.
fn covers(pattern: &str, resource: &str) -> bool {
    let (name, group) = resource.split_once('.').unwrap_or((resource, ""));
    match pattern.split_once('.') {
        _ if pattern == resource || pattern == "*.*" => true,
        Some((of, in_group)) => (of == "*" || of == name) && in_group == group,
        None => pattern == name && group.is_empty(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_repeats_no_key_of_an_encryption_configuration() {
        for text in [
            "kind: EncryptionConfiguration\nresources: canary",
            "resources: [{resources: [secrets], providers: [{aescbc: {keys: [{secret: canary]",
            "canary",
        ] {
            let why = configured(text, &["secrets".to_owned()]).unwrap_err();
            assert!(why.contains("it has another form"), "{why}");
            assert!(!why.contains("canary") && !why.contains('\n'), "{why}");
        }
    }
}
