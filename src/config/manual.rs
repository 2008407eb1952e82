//! Generates the manual page in mdoc(7) from the flags.

use std::fmt::Write as _;

use super::{
    catalogue::Catalogue,
    commands::{ABOUT, Command, commands},
    flags::{Flag, Takes},
};

/// The usual width of the source of a page, in characters.
const WIDTH: usize = 78;

const BEFORE_FLAGS: &str = "\
.Sh OPTIONS
Flags take one dash or two.
Each flag has a variable:
.Ev VAULT_KUBE_KMS_
and its name in capitals with underscores.
Each flag has a key of its name in the TOML file of
.Fl -config .
Flags win over variables, and variables win over the file.
A flag that is marked as repeatable also takes several values with commas.
";

const AFTER_FLAGS: &str = "\
.Sh FILES
.Bl -tag -width Ds
.It Pa /etc/vault-kube-kms/vault-kube-kms.env
The variables of the service.
.It Pa /etc/vault-kube-kms/NAME.env
The variables of the instance
.Pa vault-kube-kms@NAME.service .
.It Pa /run/vault-kube-kms/vault-kube-kms.sock
The socket of the service.
.It Pa /var/lib/vault-kube-kms/key.json
The key of the embedded keeper.
Without this file, what was encrypted with it cannot be read.
.El
.Sh EXIT STATUS
.Bl -tag -width Ds
.It 0
The command succeeded, or the provider was asked to stop.
.It 1
The command failed.
.It 64
A flag, a variable or a key of the file is wrong, and nothing was started.
.El
.Pp
.Ic check
exits with 0 when all findings pass, with 1 when it warns, and with 2 when
a finding fails.
.Sh SIGNALS
.Bl -tag -width Ds
.It Dv SIGHUP
Read credentials and authorities again.
.It Dv SIGTERM , Dv SIGINT
Take no new calls, finish the running calls, and stop.
.El
.Sh EXAMPLES
Check the settings of the service before it is started:
.Bd -literal -offset indent
set -a; . /etc/vault-kube-kms/vault-kube-kms.env; set +a
vault-kube-kms check
.Ed
.Pp
Start a new version of the program without a refused connection, when the
socket unit is enabled:
.Pp
.Dl systemctl restart vault-kube-kms.service
.Sh SEE ALSO
.Xr journalctl 1 ,
.Xr systemctl 1 ,
.Xr systemd.socket 5
";

/// Returns the text of the page.
#[must_use]
pub fn page() -> String {
    let mut text = ".\\\" Made from the flags of the program.\n\
         .Dd $Mdocdate$\n.Dt VAULT-KUBE-KMS 8\n.Os\n.Sh NAME\n.Nm vault-kube-kms\n\
         .Nd Kubernetes KMS v2 provider for Vault and OpenBao\n.Sh SYNOPSIS\n"
        .to_owned();
    let catalogue = Catalogue::built_in();
    let commands = commands(&catalogue);
    for Command { words, usage, .. } in &commands {
        let words =
            if usage.starts_with('[') { format!("Op Cm {words}") } else { format!("Cm {words}") };
        let flags = if usage.ends_with("[FLAGS]") { "\n.Op Ar flags" } else { "" };
        let _infallible = writeln!(text, ".Nm\n.{words}{flags}");
    }
    text.push_str(".Nm\n.Fl -help | -version\n.Sh DESCRIPTION\n.Nm\nis a ");
    let about = ABOUT.strip_prefix("A ").unwrap_or(ABOUT);
    let _infallible = writeln!(text, "{}\n.Bl -tag -width Ds", folded(about));
    for Command { words, help, .. } in &commands {
        let _infallible = writeln!(text, ".It Cm {words}\n{}", sentence(help));
    }
    text.push_str(".El\n");
    text.push_str(BEFORE_FLAGS);
    for (group, flags) in catalogue.groups() {
        let _infallible = writeln!(text, ".Ss {}\n.Bl -tag -width Ds", escaped(group));
        for flag in flags {
            entry(&mut text, flag);
        }
        text.push_str(".El\n");
    }
    text + AFTER_FLAGS
}

fn entry(text: &mut String, flag: &Flag) {
    let Flag { name, takes, default, help } = flag;
    let value = match takes {
        Takes::Bool => " Ns Op = Ns Ar BOOL".to_owned(),
        Takes::Value(word) | Takes::Values(word) | Takes::OneOf(word, _) => {
            format!(" Ns = Ns Ar {}", escaped(word))
        }
    };
    let _infallible = writeln!(text, ".It Fl -{name}{value}\n{}", sentence(help));
    if matches!(takes, Takes::Values(_)) {
        text.push_str("Repeatable.\n");
    }
    if !default.is_empty() {
        let _infallible = writeln!(text, "Default:\n.Ql {} .", escaped(default));
    }
}

/// Returns `help` with a capital at its start, a full stop at its end, and one sentence on each
/// line.
fn sentence(help: &str) -> String {
    let mut letters = help.chars();
    let first = letters.next().map(|letter| letter.to_ascii_uppercase().to_string());
    let text = format!("{}{}", first.unwrap_or_default(), letters.as_str());
    let text = format!("{}.", text.trim_end_matches('.')).replace(". ", ".\n");
    text.lines().map(folded).collect::<Vec<_>>().join("\n")
}

/// Returns `line`, escaped for the formatter and folded into lines shorter than [`WIDTH`].
fn folded(line: &str) -> String {
    let (mut text, mut width) = (String::new(), 0);
    for word in line.split(' ').map(escaped) {
        let fits = width + word.len() < WIDTH;
        if width > 0 {
            text.push(if fits { ' ' } else { '\n' });
        }
        width = if fits { width + word.len() + 1 } else { word.len() + 1 };
        text.push_str(&word);
    }
    text
}

/// Escapes the characters of `text` that have a meaning for the formatter.
fn escaped(text: &str) -> String {
    text.replace('\\', "\\e").replace('-', "\\-").replace('\'', "\\(aq")
}
