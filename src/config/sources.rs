//! Collects the given values: flags win over variables, and variables win over the file.

use std::{cmp::Ordering, collections::BTreeMap, path::Path, sync::Arc};

use config::{Environment, Source as _, Value};

use super::{
    catalogue::Catalogue,
    error::{ConfigError, Origin},
    file,
    flags::{Flag, Takes},
};

/// Most errors about unknown names. A file of another kind can hold thousands.
const UNKNOWN_MAX: usize = 20;

/// The values given for one flag, and their origin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Given {
    /// One value, or several for a repeatable flag.
    pub values: Vec<String>,
    /// Where the values came from.
    pub origin: Origin,
}

/// All given values by flag name.
#[derive(Clone, Debug)]
pub struct Sources {
    catalogue: Arc<Catalogue>,
    given: BTreeMap<&'static str, Given>,
    /// How many names are unknown.
    unknown: usize,
    /// The errors found while collecting.
    pub errors: Vec<ConfigError>,
    /// What was ignored, and why.
    pub warnings: Vec<String>,
    /// Set when `--help` or `--version` is given. No command then runs.
    pub asked: Option<Asked>,
}

/// The flags that print a text instead of running a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked {
    /// `--help`, `-h`.
    Help,
    /// `--version`.
    Version,
}

impl Sources {
    /// Does the same as [`Sources::of`], for vault-kube-kms.
    #[must_use]
    pub fn collect(args: &[String], variables: impl IntoIterator<Item = (String, String)>) -> Self {
        Self::of(&Arc::new(Catalogue::built_in()), args, variables)
    }

    /// Collects the flags of `catalogue` from `args` (without the program's name and command), from
    /// `variables`, and from the file that `--config` or its variable names.
    #[must_use]
    pub fn of(
        catalogue: &Arc<Catalogue>,
        args: &[String],
        variables: impl IntoIterator<Item = (String, String)>,
    ) -> Self {
        let mut sources = Self {
            catalogue: Arc::clone(catalogue),
            given: BTreeMap::new(),
            unknown: 0,
            errors: Vec::new(),
            warnings: Vec::new(),
            asked: None,
        };
        let flags = sources.read_flags(args);
        let variables = sources.read_variables(variables);
        let named = flags.get("config").or_else(|| variables.get("config"));
        let file = match named.and_then(|given| Some((given.values.last()?, &given.origin))) {
            Some((path, origin)) => sources.read_file(path, origin),
            None => BTreeMap::new(),
        };
        for layer in [file, variables, flags] {
            sources.given.extend(layer);
        }
        sources
    }

    /// Returns the flags and keepers of the program.
    #[must_use]
    pub fn catalogue(&self) -> &Catalogue {
        &self.catalogue
    }

    /// Returns the values given for the flag `name`.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Given> {
        self.given.get(name)
    }

    fn read_flags(&mut self, args: &[String]) -> BTreeMap<&'static str, Given> {
        let catalogue = Arc::clone(&self.catalogue);
        let mut given: BTreeMap<&'static str, Given> = BTreeMap::new();
        let mut args = args.iter();
        while let Some(arg) = args.next() {
            let Some(body) = arg.strip_prefix("--").or_else(|| arg.strip_prefix('-')) else {
                self.wrong(arg, Origin::Flag, "this is not a flag; flags begin with --");
                continue;
            };
            let (name, value) = match body.split_once('=') {
                Some((name, value)) => (name, Some(value.to_owned())),
                None => (body, None),
            };
            let Some(flag) = catalogue.find(name) else {
                match name {
                    "h" | "help" => self.asked = Some(Asked::Help),
                    "version" => self.asked = Some(Asked::Version),
                    _ => self.unknown(name, Origin::Flag),
                }
                continue;
            };
            let value = match (value, flag.takes) {
                (Some(value), _) => value,
                (None, Takes::Bool) => "true".to_owned(),
                (None, _) => {
                    let Some(value) = args.next() else {
                        self.wrong(name, Origin::Flag, "the value is missing; write --FLAG=VALUE");
                        continue;
                    };
                    value.clone()
                }
            };
            let entry = given
                .entry(flag.name)
                .or_insert_with(|| Given { values: Vec::new(), origin: Origin::Flag });
            // The last value of a flag that is not repeatable wins, as in Go.
            if !matches!(flag.takes, Takes::Values(_)) {
                entry.values.clear();
            }
            entry.values.extend(split(flag, value));
        }
        given
    }

    fn read_variables(
        &mut self,
        variables: impl IntoIterator<Item = (String, String)>,
    ) -> BTreeMap<&'static str, Given> {
        let catalogue = Arc::clone(&self.catalogue);
        let prefix = catalogue.prefix();
        let source = Environment::with_prefix(prefix)
            .prefix_separator("_")
            .ignore_empty(true)
            .source(Some(variables.into_iter().collect()));
        let values = source.collect().unwrap_or_default();
        let mut given = BTreeMap::new();
        for (key, value) in values {
            let variable = format!("{prefix}_{}", key.to_uppercase());
            let Some(flag) = catalogue.find(&key.replace('_', "-")) else {
                // This is not an error, because Kubernetes sets such variables for a Service of
                // this name.
                self.warnings.push(format!("the variable {variable} names no flag; ignored"));
                continue;
            };
            let text = value.into_string().unwrap_or_default();
            let values = split(flag, text);
            given.insert(flag.name, Given { values, origin: Origin::Variable(variable) });
        }
        given
    }

    fn read_file(&mut self, path: &str, named: &Origin) -> BTreeMap<&'static str, Given> {
        let origin = Origin::File(path.to_owned());
        let values = match file::read(Path::new(path)) {
            Ok(values) => values,
            Err(problem) => {
                self.wrong("config", named.clone(), &format!("{path} {problem}"));
                return BTreeMap::new();
            }
        };
        let catalogue = Arc::clone(&self.catalogue);
        let mut given = BTreeMap::new();
        for (key, value) in values {
            let Some(flag) = catalogue.find(&key).filter(|flag| flag.name != "config") else {
                self.unknown(&key, origin.clone());
                continue;
            };
            let values = match value.clone().into_array() {
                Ok(items) if matches!(flag.takes, Takes::Values(_)) => {
                    items.into_iter().map(Value::into_string).collect()
                }
                _ => value.into_string().map(|text| split(flag, text)),
            };
            match values {
                Ok(values) => {
                    given.insert(flag.name, Given { values, origin: origin.clone() });
                }
                Err(_) => self.wrong(
                    flag.name,
                    origin.clone(),
                    "the value has the wrong type; write it in quotes",
                ),
            }
        }
        given
    }

    fn unknown(&mut self, name: &str, origin: Origin) {
        self.unknown += 1;
        let hint = match self.unknown.cmp(&UNKNOWN_MAX) {
            Ordering::Greater => return,
            Ordering::Equal => {
                "there is no such flag; later unknown flags are not listed".to_owned()
            }
            Ordering::Less => match self.catalogue.nearest(name) {
                Some(nearest) => format!("there is no such flag; did you mean --{nearest}?"),
                None => "there is no such flag; see --help".to_owned(),
            },
        };
        self.wrong(name, origin, &hint);
    }

    fn wrong(&mut self, flag: &str, origin: Origin, problem: &str) {
        let flag = flag.trim_start_matches('-').to_owned();
        self.errors.push(ConfigError { flag, origin, problem: problem.to_owned() });
    }
}

/// Splits `text` at commas when the flag is repeatable. A value that contains a comma can be
/// written in an array of the file.
fn split(flag: &Flag, text: String) -> Vec<String> {
    match flag.takes {
        Takes::Values(_) => text.split(',').map(|part| part.trim().to_owned()).collect(),
        Takes::Value(_) | Takes::OneOf(..) | Takes::Bool => vec![text],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(line: &str) -> Vec<String> {
        line.split_whitespace().map(str::to_owned).collect()
    }

    fn variables(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        pairs.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect()
    }

    fn first<'a>(sources: &'a Sources, name: &str) -> &'a str {
        sources.get(name).and_then(|given| given.values.first()).unwrap()
    }

    #[test]
    fn reads_both_dash_forms_and_bare_booleans() {
        let line =
            "-vault-address=https://a --transit-key k -tls-skip-verify --require-enterprise=false";
        let sources = Sources::collect(&args(line), []);
        assert_eq!(sources.errors, []);
        assert_eq!(first(&sources, "vault-address"), "https://a");
        assert_eq!(first(&sources, "transit-key"), "k");
        assert_eq!(first(&sources, "tls-skip-verify"), "true");
        assert_eq!(first(&sources, "require-enterprise"), "false");
    }

    #[test]
    fn splits_repeatable_values_at_commas_from_every_source() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("c.toml");
        std::fs::write(&path, "allowed-uid = '1, 2'\naccept-key-id = ['a,b=1']\n").unwrap();
        let config = format!("--config={}", path.display());
        let from_file = Sources::collect(&args(&config), []);
        let from_flags = Sources::collect(&args("--allowed-uid=1,2 --transit-key=a,b"), []);
        let several_flags = Sources::collect(&args("--allowed-uid=1 --allowed-uid=2"), []);
        let environment = [("VAULT_KUBE_KMS_ALLOWED_UID", "1,2")];
        let from_variables = Sources::collect(&[], variables(&environment));
        for sources in [&from_file, &from_flags, &several_flags, &from_variables] {
            assert_eq!(sources.get("allowed-uid").unwrap().values, ["1", "2"]);
        }
        assert_eq!(from_flags.get("transit-key").unwrap().values, ["a,b"]);
        assert_eq!(from_file.get("accept-key-id").unwrap().values, ["a,b=1"]);
    }

    #[test]
    fn flags_win_over_variables_over_file() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("c.toml");
        std::fs::write(
            &path,
            "transit-key = 'f'\ntransit-mount = 'f'\nauth-mount = 'f'\nmetrics-port = 7\n",
        )
        .unwrap();
        let line = format!("--transit-key=a --config={}", path.display());
        let environment =
            [("VAULT_KUBE_KMS_TRANSIT_KEY", "v"), ("VAULT_KUBE_KMS_TRANSIT_MOUNT", "v")];
        let sources = Sources::collect(&args(&line), variables(&environment));
        assert_eq!(sources.errors, []);
        assert_eq!(first(&sources, "transit-key"), "a");
        assert_eq!(first(&sources, "transit-mount"), "v");
        assert_eq!(first(&sources, "auth-mount"), "f");
        assert_eq!(first(&sources, "metrics-port"), "7");
        assert_eq!(
            sources.get("auth-mount").unwrap().origin,
            Origin::File(path.display().to_string())
        );
    }

    #[test]
    fn reports_every_misspelling_with_the_nearest_name() {
        let sources =
            Sources::collect(&args("--vault-adress=x --transit-kye k y --nothing-like-it"), []);
        let texts: Vec<_> = sources.errors.iter().map(ToString::to_string).collect();
        assert_eq!(texts.len(), 5, "{texts:?}");
        assert!(texts[0].contains("did you mean --vault-address?"), "{texts:?}");
    }

    #[test]
    fn accepts_variables_that_kubernetes_sets_for_a_service() {
        let environment = [("VAULT_KUBE_KMS_SERVICE_HOST", "10.0.0.1")];
        let sources = Sources::collect(&[], variables(&environment));
        assert_eq!((sources.errors.len(), sources.warnings.len()), (0, 1));
    }

    /// Collects a file with `content`, and returns the errors.
    fn errors_of_a_file(content: &str) -> Vec<String> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("c.toml");
        std::fs::write(&path, content).unwrap();
        let sources = Sources::collect(&args(&format!("--config {}", path.display())), []);
        sources.errors.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn rejects_a_file_with_an_unknown_key_or_bad_syntax() {
        for (text, place) in [
            ("vault-adress = 'x'", "--vault-adress"),
            ("vault-address = ", "line 1, column 17: "),
            ("\u{feff}# \u{e9}\r\n\u{e9} = 'x'", "line 2, column 1: "),
            ("[vault]\naddress = 'x'", "--vault "),
            ("transit-key = ['a']", "--transit-key "),
            ("health-port = 99999999999999999999", "too large"),
        ] {
            let errors = errors_of_a_file(text);
            assert!(errors.len() == 1 && errors[0].contains(place), "{text}: {errors:?}");
        }
    }

    #[test]
    fn an_error_repeats_nothing_of_a_file_that_is_not_a_configuration() {
        let secret = "5b1c9f1e-canary-4c55";
        for text in [
            secret.to_owned(),
            format!("token={secret}"),
            format!("token = \"{secret}"),
            format!("root:$6${secret}:19000:0:99999:7:::\n"),
            format!("{{\"secret_id\": \"{secret}\"}}"),
            format!("-----BEGIN PRIVATE KEY-----\n{secret}\n"),
            format!("health-port = 1{secret}"),
            format!("auth-mount = 1979-05-27T{secret}"),
        ] {
            let errors = errors_of_a_file(&text);
            assert!(errors.len() == 1 && !errors[0].contains("canary"), "{text}: {errors:?}");
        }
    }

    #[test]
    fn a_large_file_of_another_kind_ends_in_few_short_errors() {
        let lines: Vec<_> = (0..20_000).map(|n| format!("key{n} = 1")).collect();
        let errors = errors_of_a_file(&lines.join("\n"));
        assert_eq!(errors.len(), UNKNOWN_MAX);
        assert!(errors.last().unwrap().ends_with("later unknown flags are not listed"));
        let long = "k".repeat(200_000);
        for text in [format!("{long} = 1"), long] {
            let errors = errors_of_a_file(&text);
            assert!(errors.len() == 1 && errors[0].len() < 1_000, "{}", errors.len());
        }
    }
}
