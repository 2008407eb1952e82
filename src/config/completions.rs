//! Shell completions for the command line.

use std::{collections::BTreeMap, fmt::Write as _};

use super::{
    catalogue::Catalogue,
    commands::{Command, commands},
    flags::{Flag, Takes},
};

const BASH: &str = r"# Completion of vault-kube-kms in bash, made from its flags.
_vault_kube_kms() {
    local word=${COMP_WORDS[COMP_CWORD]} before=${COMP_WORDS[COMP_CWORD - 1]} assigned='' words=''
    # Bash treats = as a separate word.
    if [[ $word == = ]]; then
        word='' assigned=yes
    elif [[ $before == = ]]; then
        before=${COMP_WORDS[COMP_CWORD - 2]} assigned=yes
    fi
    # One dash or two.
    [[ $before == -[!-]* ]] && before=-$before
    case $assigned$before in
";

const BASH_END: &str = r#"    esac
    mapfile -t COMPREPLY < <(compgen -W "$words" -- "$word")
}
complete -F _vault_kube_kms vault-kube-kms
"#;

/// Returns the completion script for bash.
#[must_use]
pub fn bash() -> String {
    let catalogue = Catalogue::built_in();
    let mut text = BASH.to_owned();
    let named = |wanted: fn(&Flag) -> bool, before: &str| {
        let names = catalogue.all().filter(|flag| wanted(flag));
        names.map(|flag| format!("{before}--{}", flag.name)).collect::<Vec<_>>().join(" | ")
    };
    let mut case = |pattern: &str, then: &str| {
        let _infallible = write!(text, "    {pattern})\n        {then}\n        ;;\n");
    };
    let files = named(is_file, "");
    case(&with_assigned(&files), FILES);
    case(&named(|flag| flag.takes == Takes::Bool, "yes"), "words='true false'");
    for flag in catalogue.all() {
        if let Takes::OneOf(_, values) = flag.takes {
            let pattern = format!("--{}", flag.name);
            case(&with_assigned(&pattern), &format!("words='{}'", values.join(" ")));
        }
    }
    let others = named(
        |flag| !is_file(flag) && matches!(flag.takes, Takes::Value(_) | Takes::Values(_)),
        "",
    );
    case(&with_assigned(&others), "words=''");
    let commands = commands(&catalogue);
    for (first, seconds) in second_words(&commands) {
        case(&format!("*{first}"), &format!("words='{}'", seconds.join(" ")));
    }
    let flags =
        catalogue.all().map(|flag| format!("--{}", flag.name)).collect::<Vec<_>>().join(" ");
    let _infallible = write!(
        text,
        "    *)\n        words='{flags} --help --version'\n        \
         [[ $COMP_CWORD == 1 ]] && words+=' {}'\n        ;;\n",
        first_words(&commands).join(" ")
    );
    text + BASH_END
}

const FILES: &str = "compopt -o filenames 2>/dev/null\n        \
                     mapfile -t COMPREPLY < <(compgen -f -- \"$word\")\n        return";

/// Returns a pattern that matches the flags of `pattern` followed by a space or by `=`.
fn with_assigned(pattern: &str) -> String {
    format!("{pattern} | {}", pattern.replace("--", "yes--"))
}

/// Returns the completion script for zsh.
#[must_use]
pub fn zsh() -> String {
    let catalogue = Catalogue::built_in();
    let mut text = "#compdef vault-kube-kms\n# Completion of vault-kube-kms in zsh, made from its flags.\n_arguments -S \\\n".to_owned();
    let commands = commands(&catalogue);
    let first = first_words(&commands).join(" ");
    let seconds = second_words(&commands)
        .iter()
        .map(|(first, seconds)| {
            format!("[[ $words[2] == {first} ]] && compadd {}", seconds.join(" "))
        })
        .collect::<Vec<_>>()
        .join("; ");
    let _infallible =
        writeln!(text, "    '1:command:({first})' \\\n    '2:action:{{ {seconds} }}' \\");
    for flag in catalogue.all() {
        let several = if matches!(flag.takes, Takes::Values(_)) { "*" } else { "" };
        let (assign, values) = match flag.takes {
            Takes::Bool => ("=-", "::truth:(true false)".to_owned()),
            Takes::OneOf(word, values) => ("=", format!(":{word}:({})", values.join(" "))),
            Takes::Value("FILE") => ("=", ":FILE:_files".to_owned()),
            Takes::Value(word) | Takes::Values(word) => ("=", format!(":{word}: ")),
        };
        let help = flag
            .help
            .replace('[', "(")
            .replace(']', ")")
            .replace(':', "\\:")
            .replace('\'', "'\\''");
        let _infallible =
            writeln!(text, "    '{several}--{}{assign}[{help}]{values}' \\", flag.name);
    }
    text + "    '(- *)--help[Print the help]' \\\n    '(- *)--version[Print the version]'\n"
}

/// Returns the completion script for fish.
#[must_use]
pub fn fish() -> String {
    let catalogue = Catalogue::built_in();
    let mut text = "# Completion of vault-kube-kms in fish, made from its flags.\ncomplete -c vault-kube-kms -f\n".to_owned();
    let quoted = |help: &str| help.replace('\\', "\\\\").replace('\'', "\\'");
    let commands = commands(&catalogue);
    for command in &commands {
        let (word, condition) = match command.words.split_once(' ') {
            Some((first, second)) => (second, format!("__fish_seen_subcommand_from {first}")),
            None => (command.words, "__fish_use_subcommand".to_owned()),
        };
        let help = quoted(command.help);
        let _infallible =
            writeln!(text, "complete -c vault-kube-kms -n '{condition}' -a {word} -d '{help}'");
    }
    for (first, _) in second_words(&commands) {
        let _infallible = writeln!(
            text,
            "complete -c vault-kube-kms -n __fish_use_subcommand -a {first} -d 'commands of --keeper={first}'"
        );
    }
    for flag in catalogue.all() {
        let values = match flag.takes {
            Takes::Bool => String::new(),
            Takes::OneOf(_, values) => format!(" -x -a '{}'", values.join(" ")),
            Takes::Value("FILE") => " -r -F".to_owned(),
            Takes::Value(_) | Takes::Values(_) => " -x".to_owned(),
        };
        let _infallible = writeln!(
            text,
            "complete -c vault-kube-kms -l {}{values} -d '{}'",
            flag.name,
            quoted(flag.help)
        );
    }
    text + "complete -c vault-kube-kms -l help -d 'Print the help'\n\
            complete -c vault-kube-kms -l version -d 'Print the version'\n"
}

fn is_file(flag: &Flag) -> bool {
    flag.takes == Takes::Value("FILE")
}

/// Returns the first words of all commands, each once.
fn first_words(commands: &[Command]) -> Vec<&'static str> {
    let mut words: Vec<_> =
        commands.iter().filter_map(|command| command.words.split(' ').next()).collect();
    words.dedup();
    words
}

/// Returns the second words of commands by their first word.
fn second_words(commands: &[Command]) -> BTreeMap<&'static str, Vec<&'static str>> {
    let mut words = BTreeMap::<_, Vec<_>>::new();
    for (first, second) in commands.iter().filter_map(|command| command.words.split_once(' ')) {
        words.entry(first).or_default().push(second);
    }
    words
}
