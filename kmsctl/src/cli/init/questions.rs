//! Asks an operator on a terminal.

use std::io::{self, BufRead as _, Read as _, Write as _};

use vault_kube_kms::config::{
    catalogue::Catalogue,
    flags::{Flag, Takes},
};

use crate::{
    domain::problem::Problem,
    installation::{Answers, Begin, Form},
};

/// The longest answer, in bytes.
const ANSWER_MAX: u64 = 4_096;

/// Most questions for one flag, and most flags that are asked for because they are missing.
const TRIES: usize = 20;

/// What the flags of the command answer already.
#[derive(Clone, Copy, Debug)]
pub(super) struct Given {
    pub(super) form: bool,
    pub(super) resources: bool,
    pub(super) begin: bool,
}

/// Asks for what has a default.
///
/// # Errors
/// `no-answer` when the input ends.
pub(super) fn ask(
    answers: &mut Answers,
    given: Given,
    system_authorities: bool,
) -> Result<(), Problem> {
    if !given.form {
        answers.form =
            match choice("How does the provider run?", &["static-pod", "systemd"])?.as_str() {
                "systemd" => Form::Systemd,
                _ => Form::StaticPod,
            };
    }
    flag(answers, "keeper")?;
    if answers.value("keeper") == "vault" {
        flag(answers, "vault-address")?;
        if !answers.flags.contains_key("vault-key-path")
            && !answers.flags.contains_key("transit-key")
        {
            let path = text("The key, <mount>/keys/<key>", "transit/keys/kubernetes")?;
            answers.flags.insert("vault-key-path".to_owned(), path);
        }
        if !system_authorities && !answers.flags.contains_key("tls-ca-file") {
            let path = "/etc/vault-kube-kms/ca.pem";
            let path =
                text("The keeper's certificate authority on the node (- for the system's)", path)?;
            answers
                .flags
                .insert("tls-ca-file".to_owned(), if path == "-" { String::new() } else { path });
        }
        flag(answers, "auth-method")?;
    }
    if !given.resources {
        let resources = text("The resources to encrypt, with commas", "secrets")?;
        answers.resources = resources.split(',').map(|name| name.trim().to_owned()).collect();
    }
    if !given.begin {
        let question = "The first stage? write is for a cluster with one API server and no data";
        answers.begin = match choice(question, &["read", "write"])?.as_str() {
            "write" => Begin::Write,
            _ => Begin::Read,
        };
    }
    Ok(())
}

/// Asks for the flags that the provider misses or does not accept.
///
/// # Errors
/// `no-answer` when the input ends.
pub(super) fn ask_missing(answers: &mut Answers) -> Result<(), Problem> {
    for _ in 0..TRIES {
        let Some((name, why)) = answers.wrong_flag() else { break };
        let help = Catalogue::built_in().find(&name).map_or("", |flag| flag.help);
        let value = text(&format!("{why}\n--{name}: {help}"), "")?;
        answers.flags.insert(name, value);
    }
    Ok(())
}

fn flag(answers: &mut Answers, name: &str) -> Result<(), Problem> {
    let catalogue = Catalogue::built_in();
    let Some(Flag { help, takes, default, .. }) = catalogue.find(name) else { return Ok(()) };
    if answers.flags.contains_key(name) {
        return Ok(());
    }
    let value = match takes {
        Takes::OneOf(_, values) => choice(help, values)?,
        _ => text(help, default)?,
    };
    if value != *default {
        answers.flags.insert(name.to_owned(), value);
    }
    Ok(())
}

/// Asks until the answer is one of `values`. The first of them is the default.
fn choice(question: &str, values: &[&str]) -> Result<String, Problem> {
    let default = values.first().copied().unwrap_or_default();
    for _ in 0..TRIES {
        let answer = text(&format!("{question} ({})", values.join(", ")), default)?;
        if values.contains(&answer.as_str()) {
            return Ok(answer);
        }
    }
    Err(no_answer())
}

/// Asks for a text. An empty answer stands for `default`.
fn text(question: &str, default: &str) -> Result<String, Problem> {
    let mut out = io::stderr().lock();
    let shown = if default.is_empty() { String::new() } else { format!(" [{default}]") };
    let written = write!(out, "{question}{shown}: ").and_then(|()| out.flush());
    written.map_err(|_source| no_answer())?;
    let mut line = String::new();
    let read = io::stdin().lock().take(ANSWER_MAX).read_line(&mut line);
    if read.map_err(|_source| no_answer())? == 0 {
        return Err(no_answer());
    }
    let answer = line.trim();
    Ok(if answer.is_empty() { default } else { answer }.to_owned())
}

fn no_answer() -> Problem {
    Problem::new(
        "no-answer",
        "a question has no valid answer",
        "give the answers as flags, with --yes",
    )
}
