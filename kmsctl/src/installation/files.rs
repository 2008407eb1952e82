//! The files of an installation: those of `deploy/`, with the operator's values in place of the
//! examples.

use k8s_openapi::api::core::v1::Pod;
use serde::de::DeserializeOwned;
use serde_json::Value;
use vault_kube_kms::config::{catalogue::Catalogue, environment};

use super::{Answers, Form};
use crate::domain::problem::Problem;

const SETUP: &str = include_str!("../../../deploy/vault/setup.sh");
const POLICY_ISSUER: &str = include_str!("../../../deploy/vault/policy-issuer.hcl");
const POD: &str = include_str!("../../../deploy/static-pod/vault-kube-kms.yaml");
const POD_TMPFILES: &str = include_str!("../../../deploy/static-pod/tmpfiles.conf");
const SERVICE: &str = include_str!("../../../deploy/systemd/vault-kube-kms.service");
const SYSUSERS: &str = include_str!("../../../deploy/systemd/sysusers.conf");
const TMPFILES: &str = include_str!("../../../deploy/systemd/tmpfiles.conf");
const READ: &str = include_str!("../../../deploy/kubernetes/encryption-config/1-read.yaml");
const WRITE: &str = include_str!("../../../deploy/kubernetes/encryption-config/2-write.yaml");
const ONLY: &str = include_str!("../../../deploy/kubernetes/encryption-config/3-only.yaml");
const PATCH: &str = include_str!("../../../deploy/kubeadm/patches/kube-apiserver0+json.yaml");
const ADMISSION: &str = include_str!("../../../deploy/kubernetes/admission-policy.yaml");
const RULES: &str = include_str!("../../../deploy/monitoring/rules.yaml");
const SCRAPE: &str = include_str!("../../../deploy/monitoring/scrape.yaml");

/// A file of an installation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct File {
    /// Its path below the directory of the installation.
    pub path: &'static str,
    /// Its content.
    pub text: String,
    /// Whether it is a program.
    pub is_program: bool,
}

/// Returns the files for `answers`, in the order of the steps.
///
/// # Errors
/// - The errors of [`Answers::check`].
/// - `example-changed`: a file of `deploy/` does not have the line that must be replaced. This is an
///   error of this program.
pub fn files(answers: &Answers) -> Result<Vec<File>, Problem> {
    answers.check()?;
    let file = |path, text: &str| File { path, text: text.to_owned(), is_program: false };
    let mut files = Vec::new();
    if let Some(policy) = answers.policy() {
        files.push(file("1-keeper/policy.hcl", &policy));
        if answers.has_script() {
            files.push(File { is_program: true, ..file("1-keeper/setup.sh", SETUP) });
            files.push(file("1-keeper/policy-issuer.hcl", POLICY_ISSUER));
        }
    }
    match answers.form {
        Form::StaticPod => {
            files.push(file("2-provider/vault-kube-kms.yaml", &static_pod(answers)?));
            files.push(file("2-provider/tmpfiles.conf", POD_TMPFILES));
        }
        Form::Systemd => {
            files.push(file("2-provider/vault-kube-kms.env", &environment_file(answers)?));
            files.push(file("2-provider/vault-kube-kms.service", SERVICE));
            files.push(file("2-provider/sysusers.conf", SYSUSERS));
            files.push(file("2-provider/tmpfiles.conf", TMPFILES));
        }
    }
    for (path, shipped) in [
        ("3-api-server/1-read.yaml", READ),
        ("3-api-server/2-write.yaml", WRITE),
        ("3-api-server/3-only.yaml", ONLY),
    ] {
        files.push(file(path, &encryption_config(path, shipped, &answers.resources)?));
    }
    files.push(file("3-api-server/patches/kube-apiserver0+json.yaml", PATCH));
    files.push(file("4-protect/admission-policy.yaml", ADMISSION));
    files.push(file("4-protect/rules.yaml", RULES));
    files.push(file("4-protect/scrape.yaml", SCRAPE));
    Ok(files)
}

fn changed(file: &str, what: &str) -> Problem {
    Problem::new(
        "example-changed",
        format!("the built-in {file} does not have {what} as expected"),
        "report this error of vault-kube-kmsctl, and edit the file of deploy/ by hand",
    )
}

/// Replaces the only `from` in `text`.
fn replaced(file: &str, text: &str, from: &str, to: &str) -> Result<String, Problem> {
    if text.matches(from).count() != 1 {
        return Err(changed(file, &format!("{from:?} once")));
    }
    Ok(text.replacen(from, to, 1))
}

/// Checks that `text` is YAML, and reads it.
pub(super) fn yaml<T: DeserializeOwned>(file: &str, text: &str) -> Result<T, Problem> {
    serde_saphyr::from_str(text).map_err(|error| changed(file, &format!("valid YAML ({error})")))
}

fn encryption_config(file: &str, shipped: &str, resources: &[String]) -> Result<String, Problem> {
    let names = format!("resources: [{}]", resources.join(", "));
    let text = replaced(file, shipped, "resources: [secrets]", &names)?;
    let config: Value = yaml(file, &text)?;
    if config.pointer("/resources/0/resources") != Some(&Value::from(resources)) {
        return Err(changed(file, "the list of resources"));
    }
    Ok(text)
}

/// The lines of the Pod's arguments begin with this.
const ARGUMENT: &str = "        - --";

fn static_pod(answers: &Answers) -> Result<String, Problem> {
    let file = "static-pod/vault-kube-kms.yaml";
    let wanted = answers.arguments();
    let begin = POD.find("      args:\n").ok_or_else(|| changed(file, "arguments"))?;
    let (before, rest) = POD.split_at_checked(begin).ok_or_else(|| changed(file, "arguments"))?;
    let mut lines = rest.split_inclusive('\n');
    let mut text = before.to_owned();
    text.extend(lines.next());
    let (mut left, mut after) = (wanted.clone(), String::new());
    for line in lines {
        let shipped = line.strip_prefix(ARGUMENT).filter(|_| after.is_empty());
        let Some(shipped) = shipped else {
            after.push_str(line);
            continue;
        };
        let shipped = shipped.split_whitespace().next().unwrap_or_default();
        let name = shipped.split('=').next().unwrap_or_default();
        let same = |argument: &String| {
            argument.strip_prefix("--").and_then(|text| text.split('=').next()) == Some(name)
        };
        let Some(index) = left.iter().position(same) else { continue };
        let argument = left.remove(index);
        if argument.strip_prefix("--") == Some(shipped) {
            text.push_str(line);
        } else {
            text.push_str(&argument_line(&argument));
        }
    }
    for argument in &left {
        text.push_str(&argument_line(argument));
    }
    text.push_str(&after);
    if let Some(image) = &answers.image {
        let line = POD.lines().find(|line| line.trim_start().starts_with("image: "));
        let line = line.filter(|line| line.contains("# change"));
        let line = line.ok_or_else(|| changed(file, "a marked image"))?;
        text = replaced(file, &text, line, &format!("      image: {image}"))?;
    }
    let pod: Pod = yaml(file, &text)?;
    let container = pod.spec.and_then(|spec| spec.containers.into_iter().next());
    let mut arguments = container.and_then(|container| container.args).unwrap_or_default();
    let mut expected = wanted;
    arguments.sort();
    expected.sort();
    if arguments != expected {
        return Err(changed(file, "the arguments"));
    }
    Ok(text)
}

fn argument_line(argument: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=,@+".contains(c);
    if argument.chars().all(plain) && !argument.ends_with(':') {
        format!("        - {argument}\n")
    } else {
        // JSON is YAML. The text has no character that only one of them escapes.
        format!("        - {}\n", Value::from(argument))
    }
}

fn environment_file(answers: &Answers) -> Result<String, Problem> {
    let catalogue = Catalogue::built_in();
    let mut text = environment::file();
    for (name, value) in &answers.flags {
        let variable = format!("{}_{}", catalogue.prefix(), name.replace('-', "_").to_uppercase());
        let default = catalogue.find(name).map_or("", |flag| flag.default);
        let from = format!("\n#{variable}=\"{default}\"\n");
        let to = format!("\n{variable}=\"{value}\"\n");
        text = replaced("vault-kube-kms.env", &text, &from, &to)?;
    }
    Ok(text)
}
