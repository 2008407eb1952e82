//! `init`: the files and commands of a new installation.

mod questions;

use std::{
    io::{self, IsTerminal as _},
    path::{Path, PathBuf},
};

use clap::ValueEnum;

use super::outcome::{Outcome, print};
use crate::{
    adapters::{
        api_server::metrics::ApiServerMetrics,
        installation::{self, NodeFiles},
    },
    domain::problem::{Problem, another_form},
    installation::{
        API_SERVER_MANIFEST, Answers, Begin, ENCRYPTION_CONFIG, Facts, File, Form, Known, Progress,
        SOCKET, State, files, next, progress, provider_files, readme,
    },
};

/// The file with the answers, for `--check`.
const ANSWERS: &str = "answers.json";

#[derive(Clone, Copy, Debug, ValueEnum)]
enum FormArg {
    StaticPod,
    Systemd,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum BeginArg {
    Read,
    Write,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Output {
    Text,
    Json,
}

/// Writes the files and the commands of a new installation, and says how far it is.
///
/// Asks on a terminal for what is not given. Writes a new directory with the provider's files, the
/// stages of the `EncryptionConfiguration` and a README.md with the commands in their order. Changes
/// nothing else.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The new directory.
    #[arg(long, value_name = "DIR", default_value = "vault-kube-kms")]
    out: PathBuf,
    /// Say which steps of the installation in this directory are done on this node, and what to
    /// type next. Exit code 0: all are done.
    #[arg(long, value_name = "DIR", conflicts_with_all = ["out", "yes", "form", "settings"])]
    check: Option<PathBuf>,
    /// With --check: the kubeconfig, to ask the API server whether its KMS providers work.
    #[arg(long, value_name = "FILE", requires = "check")]
    kubeconfig: Option<PathBuf>,
    /// With --check: the root directory of the node.
    #[arg(long, value_name = "DIR", default_value = "/", requires = "check")]
    root: PathBuf,
    /// Ask nothing. Defaults stand for what is not given.
    #[arg(long)]
    yes: bool,
    /// How the provider runs.
    #[arg(long, value_enum)]
    form: Option<FormArg>,
    /// A setting of the provider, such as `vault-address=https://vault.example.com:8200`: the name of
    /// one of its flags, without dashes, and the value. vault-kube-kms --help lists them.
    #[arg(long = "set", value_name = "FLAG=VALUE", value_parser = setting)]
    settings: Vec<(String, String)>,
    /// The keeper's certificate is from an authority of the system, so no ca.pem is needed.
    #[arg(long)]
    system_authorities: bool,
    /// The image of the static Pod.
    #[arg(long, value_name = "NAME")]
    image: Option<String>,
    /// The resources to encrypt.
    #[arg(long, value_name = "RESOURCE", value_delimiter = ',')]
    resources: Vec<String>,
    /// The first stage of the `EncryptionConfiguration`: write is for a cluster with one API server
    /// and no data.
    #[arg(long, value_enum)]
    begin: Option<BeginArg>,
    /// With --check: the form of the answer.
    #[arg(long, value_enum, default_value = "text")]
    output: Output,
}

fn setting(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("write FLAG=VALUE")?;
    let name = name.trim_start_matches('-');
    let catalogue = vault_kube_kms::config::catalogue::Catalogue::built_in();
    if catalogue.find(name).is_none() {
        let nearest =
            catalogue.nearest(name).map_or(String::new(), |name| format!("; do you mean {name}?"));
        return Err(format!("the provider has no flag --{name}{nearest}"));
    }
    if ["listen-address", "config", "output"].contains(&name) {
        return Err(format!("the files of the installation set --{name} themselves"));
    }
    Ok((name.to_owned(), value.to_owned()))
}

/// Runs the command.
pub(super) async fn run(args: Args) -> Result<Outcome, Problem> {
    if let Some(directory) = &args.check {
        return check(&args, directory).await;
    }
    let answers = answers(&args)?;
    let mut all = files(&answers)?;
    let text = readme(&answers);
    all.push(File { path: "README.md", text, is_program: false });
    // Cannot fail: the answers have only text.
    let text = serde_json::to_string_pretty(&answers).unwrap_or_default();
    all.push(File { path: ANSWERS, text: format!("{text}\n"), is_program: false });
    installation::write(&args.out, &all)?;
    let directory = args.out.display();
    let paths: Vec<_> = all.iter().map(|file| format!("  {directory}/{}", file.path)).collect();
    print(&format!("Written:\n{}\nNext: read {directory}/README.md", paths.join("\n")))?;
    Ok(Outcome::Good)
}

fn answers(args: &Args) -> Result<Answers, Problem> {
    let resources = match args.resources.as_slice() {
        [] => vec!["secrets".to_owned()],
        given => given.to_vec(),
    };
    let mut answers = Answers {
        form: match args.form {
            Some(FormArg::Systemd) => Form::Systemd,
            Some(FormArg::StaticPod) | None => Form::StaticPod,
        },
        flags: args.settings.iter().cloned().collect(),
        image: args.image.clone(),
        resources,
        begin: match args.begin {
            Some(BeginArg::Write) => Begin::Write,
            Some(BeginArg::Read) | None => Begin::Read,
        },
    };
    let asks = !args.yes && io::stdin().is_terminal();
    if asks {
        let given = questions::Given {
            form: args.form.is_some(),
            resources: !args.resources.is_empty(),
            begin: args.begin.is_some(),
        };
        questions::ask(&mut answers, given, args.system_authorities)?;
    }
    if answers.value("keeper") == "vault" && !args.system_authorities {
        let path = "/etc/vault-kube-kms/ca.pem".to_owned();
        answers.flags.entry("tls-ca-file".into()).or_insert(path);
    }
    answers.flags.retain(|_, value| !value.is_empty());
    let mut answers = answers.completed();
    if asks {
        questions::ask_missing(&mut answers)?;
    }
    Ok(answers)
}

async fn check(args: &Args, directory: &Path) -> Result<Outcome, Problem> {
    let directory_files = NodeFiles::below(directory);
    let unusable = |why: String| {
        let cause = format!("{}: {why}", directory.display());
        Problem::new("not-an-installation", cause, "name a directory that init has written")
    };
    let text = directory_files.read(ANSWERS).map_err(unusable)?;
    let text = text.ok_or_else(|| unusable(format!("{ANSWERS} does not exist")))?;
    let answers: Answers = serde_json::from_str(&text).map_err(|error| {
        unusable(format!("{ANSWERS}: {}", another_form(Some((error.line(), error.column())))))
    })?;
    let node = NodeFiles::below(&args.root);
    let status = node.status(SOCKET).await;
    let api_server = match args.kubeconfig.as_deref() {
        None => Err("give --kubeconfig".to_owned()),
        Some(path) => ApiServerMetrics::of(None, Some(path)).await?.kms_providers().await,
    };
    let wanted = provider_files(&answers);
    let gathered = tokio::task::spawn_blocking(move || {
        let manifest = node.read(API_SERVER_MANIFEST).and_then(|text| {
            text.ok_or_else(|| {
                format!("{API_SERVER_MANIFEST} does not exist; is this a control-plane node?")
            })
        });
        let wrong =
            wanted.iter().map(|(from, to)| is_wrong(&directory_files, from.as_deref(), &node, to));
        let wrong: Known<Vec<Option<String>>> = wrong.collect();
        let wrong = wrong.map(|wrong| wrong.into_iter().flatten().collect());
        (wrong, manifest, node.read(ENCRYPTION_CONFIG))
    });
    let (wrong_files, manifest, encryption_config) = gathered
        .await
        .map_err(|error| Problem::new("check-failed", error, "type the command again"))?;
    let facts = Facts { wrong_files, status, manifest, encryption_config, api_server };
    let progress = progress(&answers, &facts);
    print(&match args.output {
        Output::Text => page(&progress),
        // Cannot fail: it has only text.
        Output::Json => serde_json::to_string_pretty(&progress).unwrap_or_default(),
    })?;
    let done = progress.iter().all(|step| step.state == State::Done);
    Ok(if done { Outcome::Good } else { Outcome::Bad })
}

/// Returns `to` when that file is missing on the node, or is not equal to `from`.
fn is_wrong(
    directory: &NodeFiles,
    from: Option<&str>,
    node: &NodeFiles,
    to: &str,
) -> Known<Option<String>> {
    let is_right = match from {
        None => node.has(to)?,
        Some(from) => directory.read(from)? == node.read(to)?,
    };
    Ok((!is_right).then(|| to.to_owned()))
}

/// Returns a line for each step, and the commands of the first that is not done.
fn page(progress: &[Progress]) -> String {
    let mut lines: Vec<_> = progress
        .iter()
        .map(|step| {
            let state = match step.state {
                State::Done => "done",
                State::NotDone => "not done",
                State::Unknown => "cannot say",
            };
            format!("{state:10}  {}: {}", step.title, step.why)
        })
        .collect();
    match next(progress) {
        None => lines.push("Next: nothing".to_owned()),
        Some(next) => {
            lines.push("Next:".to_owned());
            lines.extend(next.commands.iter().map(|command| format!("  {command}")));
        }
    }
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_setting_is_a_flag_of_the_provider() {
        let pair = |name: &str, value: &str| Ok((name.to_owned(), value.to_owned()));
        assert_eq!(setting("vault-address=https://a:1"), pair("vault-address", "https://a:1"));
        assert_eq!(setting("--key-lineage=a=b"), pair("key-lineage", "a=b"));
        for (text, why) in [
            ("vault-address", "write FLAG=VALUE"),
            ("vault-adress=a", "do you mean vault-address?"),
            ("nothing-like-it=a", "has no flag --nothing-like-it"),
            ("listen-address=a", "set --listen-address themselves"),
        ] {
            assert!(setting(text).unwrap_err().contains(why), "{text}");
        }
    }
}
