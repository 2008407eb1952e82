//! Tests that the program, systemd, shells and Kubernetes accept the files of `deploy/`.
#![allow(missing_docs, clippy::pedantic, clippy::restriction, reason = "tests")]

use std::{
    collections::BTreeMap,
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use vault_kube_kms::{
    adapters::vault::{key_path::MountPath, policy},
    config::{
        catalogue::Catalogue,
        completions, environment,
        flags::Takes,
        manual,
        settings::{self, Settings},
        sources::Sources,
    },
};

/// The most exposure that `systemd-analyze security` may find, in tenths (0 to 100).
const EXPOSURE_MAX: &str = "20";

const SERVICES: [&str; 2] = ["vault-kube-kms.service", "vault-kube-kms@.service"];
const SOCKET: &str = "vault-kube-kms.socket";

fn deploy(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy").join(file)
}

/// Returns whether this machine has `systemd-analyze`. A test that cannot run prints a line, and
/// fails on CI.
fn has_systemd() -> bool {
    let found = Command::new("systemd-analyze").arg("--version").output().is_ok();
    if !found {
        assert!(env::var_os("CI").is_none(), "systemd-analyze is missing; install systemd");
        eprintln!("SKIPPED: SYSTEMD-ANALYZE IS MISSING; install systemd");
    }
    found
}

/// A root directory with the units and the programs that they start.
fn root() -> tempfile::TempDir {
    let root = tempfile::tempdir().unwrap();
    let units = root.path().join("etc/systemd/system");
    fs::create_dir_all(&units).unwrap();
    for unit in SERVICES.into_iter().chain([SOCKET]) {
        fs::copy(deploy("systemd").join(unit), units.join(unit)).unwrap();
    }
    for program in ["usr/local/bin/vault-kube-kms", "bin/kill"] {
        let path = root.path().join(program);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::copy(env!("CARGO_BIN_EXE_vault-kube-kms"), path).unwrap();
    }
    root
}

#[test]
#[cfg_attr(feature = "pkcs11", ignore = "of the program as it is shipped, without that keeper")]
fn the_environment_file_names_every_flag_with_its_default() {
    assert_generated("systemd/vault-kube-kms.env", &environment::file());
}

#[test]
#[cfg_attr(feature = "pkcs11", ignore = "of the program as it is shipped, without that keeper")]
fn the_manual_page_and_the_completions_are_those_of_the_flags() {
    assert_generated("package/vault-kube-kms.8", &manual::page());
    assert_generated("package/completion.bash", &completions::bash());
    assert_generated("package/completion.zsh", &completions::zsh());
    assert_generated("package/completion.fish", &completions::fish());
}

fn assert_generated(file: &str, expected: &str) {
    let path = deploy(file);
    if env::var_os("DEPLOY_UPDATE").is_some() {
        fs::write(&path, expected).unwrap();
    }
    let shipped = fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(shipped, expected, "run DEPLOY_UPDATE=1 cargo test --test deploy");
}

/// Returns `text` with the version of Cargo.toml behind each `mark` that a version follows.
fn with_this_version(text: &str, mark: &str) -> String {
    let mut parts = text.split(mark);
    let mut told = parts.next().unwrap().to_owned();
    for part in parts {
        let rest = part.trim_start_matches(|c: char| c.is_ascii_digit() || c == '.');
        let version = if rest.len() < part.len() { env!("CARGO_PKG_VERSION") } else { "" };
        told.extend([mark, version, rest]);
    }
    told
}

#[test]
fn the_files_that_name_a_version_name_this_one() {
    for (file, marks) in [
        (
            "README.md",
            &["vault-kube-kms_", "vault-kube-kms-", "vault-kube-kmsctl_", "vault-kube-kmsctl-"][..],
        ),
        ("distributions/talos.md", &["vault-kube-kms:"]),
        ("kubernetes/sidecar/kustomization.yaml", &["newTag: "]),
        ("static-pod/vault-kube-kms.yaml", &["localhost/vault-kube-kms:"]),
    ] {
        let shipped = fs::read_to_string(deploy(file)).unwrap();
        let expected = marks.iter().fold(shipped, |text, mark| with_this_version(&text, mark));
        assert!(expected.contains(env!("CARGO_PKG_VERSION")), "{file}");
        assert_generated(file, &expected);
    }
}

#[test]
fn the_policy_is_what_the_program_prints() {
    let flags = ["--vault-key-path=transit/keys/kubernetes".to_owned()];
    let expected = settings::policy(&Sources::collect(&flags, [])).unwrap();
    assert_generated("vault/policy.hcl", &expected);
    let issuer = policy::issuer(&MountPath::parse("approle").unwrap());
    assert_generated("vault/policy-issuer.hcl", &issuer);
    let wrapped = ["--approle-secret-id-wrapped".to_owned()];
    let wrapped = settings::policy(&Sources::collect(&[&flags[..], &wrapped].concat(), []));
    let commented: String = issuer.lines().map(|line| format!("# {line}\n")).collect();
    assert!(wrapped.unwrap().ends_with(&commented), "{commented}");
}

#[test]
fn a_policy_needs_only_the_flags_that_name_the_key() {
    let of = |flags: &[&str]| {
        let flags: Vec<_> = flags.iter().map(|flag| (*flag).to_owned()).collect();
        settings::policy(&Sources::collect(&flags, []))
            .map_err(|errors| errors.iter().map(ToString::to_string).collect::<Vec<_>>())
    };
    let wide = of(&["--transit-key=k", "--vault-namespace=admin", "--require-enterprise"]).unwrap();
    for text in ["namespace admin", "path \"transit/encrypt/k\"", "path \"sys/license/status\""] {
        assert!(wide.contains(text), "{wide}");
    }
    assert!(of(&[]).unwrap_err()[0].starts_with("--vault-key-path (not given)"));
    let beside = ["--transit-key=k", "--vault-namespace=a", "--vault-auth-namespace=b"];
    assert!(of(&beside).unwrap_err()[0].starts_with("--vault-auth-namespace"));
    assert_eq!(of(&["--keeper=local"]).unwrap_err().len(), 1);
}

/// The values that shells offer are those that the program accepts.
#[test]
fn the_program_accepts_each_value_that_shells_offer() {
    let mut tried = 0;
    for flag in Catalogue::built_in().all() {
        let Takes::OneOf(_, values) = flag.takes else { continue };
        assert!(flag.default.is_empty() || values.contains(&flag.default), "{}", flag.name);
        for value in values {
            let args = [format!("--{}={value}", flag.name)];
            let wrong = Settings::read(&Sources::collect(&args, [])).err().unwrap_or_default();
            let wrong: Vec<_> = wrong.iter().map(ToString::to_string).collect();
            let of_it = format!("--{} (given", flag.name);
            assert!(!wrong.iter().any(|error| error.starts_with(&of_it)), "{args:?}: {wrong:?}");
            tried += 1;
        }
    }
    assert!(tried > 15, "{tried}");
}

/// Returns the words that bash offers after `line`, whose last word is incomplete.
fn completed(line: &[&str]) -> Vec<String> {
    let script = "source \"$1\"; shift; COMP_WORDS=(\"$@\"); COMP_CWORD=$(($# - 1)); \
                  _vault_kube_kms; printf '%s\\n' \"${COMPREPLY[@]}\"";
    let mut bash = Command::new("bash");
    bash.args(["-uc", script, "-"]).arg(deploy("package/completion.bash"));
    let bash = bash.arg("vault-kube-kms").args(line).output().unwrap();
    let (told, offered) = (String::from_utf8(bash.stderr), String::from_utf8(bash.stdout));
    let told = told.unwrap();
    assert!(bash.status.success() && told.is_empty(), "{line:?}: {told}");
    offered.unwrap().lines().filter(|word| !word.is_empty()).map(str::to_owned).collect()
}

#[test]
#[cfg_attr(feature = "pkcs11", ignore = "of the program as it is shipped, without that keeper")]
fn bash_completes_commands_flags_and_values() {
    assert_eq!(completed(&["ch"]), ["check"]);
    assert_eq!(completed(&["local", ""]), ["init", "rotate"]);
    assert_eq!(completed(&["check", "--vault-a"]), ["--vault-address", "--vault-auth-namespace"]);
    assert_eq!(completed(&["--keeper", "lo"]), ["local"]);
    assert_eq!(completed(&["-keeper", "lo"]), ["local"]);
    assert_eq!(completed(&["--keeper", "="]), ["vault", "local"]);
    assert_eq!(completed(&["--keeper", "=", "v"]), ["vault"]);
    assert_eq!(completed(&["--tls-skip-verify", "=", ""]), ["true", "false"]);
    assert_eq!(completed(&["--tls-skip-verify", "--kee"]), ["--keeper"]);
    assert_eq!(completed(&["--vault-address", ""]), [""; 0]);
    let place = tempfile::tempdir().unwrap();
    let file = place.path().join("ca.pem");
    fs::write(&file, "").unwrap();
    let begun = place.path().join("ca").display().to_string();
    let whole = file.display().to_string();
    assert_eq!(completed(&["--tls-ca-file", "=", &begun]), [whole.as_str()]);
    for flag in Catalogue::built_in().all() {
        assert!(completed(&["--"]).contains(&format!("--{}", flag.name)), "{}", flag.name);
    }
}

/// Each commented line has the default of its setting.
#[test]
fn each_line_of_the_environment_file_is_a_variable_of_the_program() {
    let file = environment::file();
    let variables = file.lines().filter_map(|line| line.strip_prefix('#')?.split_once('='));
    let variables: Vec<_> = variables.filter(|(name, _)| !name.starts_with(' ')).collect();
    assert!(variables.len() > 30, "{variables:?}");
    for (name, value) in variables {
        let value = value.trim_matches('"').to_owned();
        let sources = Sources::collect(&[], [(name.to_owned(), value)]);
        assert!(sources.errors.is_empty(), "{name}: {:?}", sources.errors);
    }
}

#[test]
fn systemd_accepts_the_units_without_a_warning() {
    if !has_systemd() {
        return;
    }
    let root = root();
    for unit in ["vault-kube-kms.service", "vault-kube-kms@one.service", SOCKET] {
        let mut verify = Command::new("systemd-analyze");
        verify.args(["verify", "--man=no", "--recursive-errors=no"]);
        let verify = verify.arg(format!("--root={}", root.path().display())).arg(unit).output();
        let verify = verify.unwrap();
        let told = String::from_utf8_lossy(&verify.stderr);
        assert!(verify.status.success() && told.is_empty(), "{unit}: {told}");
    }
}

#[test]
fn the_units_have_a_low_exposure() {
    if !has_systemd() {
        return;
    }
    for unit in SERVICES {
        let mut security = Command::new("systemd-analyze");
        security.args(["security", "--offline=true", "--no-pager"]);
        security.arg(format!("--threshold={EXPOSURE_MAX}")).arg(deploy("systemd").join(unit));
        let found = security.output().unwrap();
        assert!(found.status.success(), "{unit}: {}", String::from_utf8_lossy(&found.stdout));
    }
}

/// Returns the values of a YAML file by their paths. The file has one document with only block
/// mappings.
fn fields(file: &str) -> BTreeMap<String, String> {
    let text = fs::read_to_string(deploy(file)).unwrap();
    let (mut path, mut fields) = (Vec::<(usize, &str)>::new(), BTreeMap::new());
    for line in text.lines().filter(|line| !line.trim_start().starts_with('#')) {
        let (key, rest) = line.split_once(':').unwrap();
        let depth = key.len() - key.trim_start().len();
        path.retain(|(above, _)| *above < depth);
        path.push((depth, key.trim_start()));
        let value = rest.split(" #").next().unwrap().trim();
        if !value.is_empty() {
            let keys: Vec<_> = path.iter().map(|(_, key)| *key).collect();
            fields.insert(keys.join("."), value.to_owned());
        }
    }
    fields
}

const OPENSHIFT: &str = "kubernetes/openshift";

/// Returns the settings of the plugin in a file: those whose paths begin with `prefix`.
fn plugin(file: &str, prefix: &str) -> BTreeMap<String, String> {
    let fields = fields(&format!("{OPENSHIFT}/{file}")).into_iter();
    fields
        .filter_map(|(path, value)| Some((path.strip_prefix(prefix)?.to_owned(), value)))
        .collect()
}

/// Source: `config/v1/types_kmsencryption.go` of openshift/api, and the resource VaultKMSConfig that library-go
/// resolves (`pkg/operator/encryption/controllers`).
#[test]
fn the_files_for_openshift_have_the_fields_of_its_api() {
    let inline = plugin("apiserver.yaml", "spec.encryption.kms.vault.");
    let names: Vec<_> = inline.keys().map(String::as_str).collect();
    let expected = [
        "authentication.appRole.secret.name",
        "authentication.type",
        "kmsPluginImage",
        "tls.caBundle.name",
        "vaultAddress",
        "vaultKeyPath",
    ];
    assert_eq!(names, expected);
    assert_eq!(inline["authentication.type"], "AppRole");
    assert!(inline["vaultAddress"].starts_with("https://"));

    // The other form has the same settings in a separate resource, whose status has the image.
    let mut resource = plugin("vaultkmsconfig.yaml", "spec.");
    resource.extend(plugin("image-status.yaml", "status."));
    assert_eq!(resource, inline);

    let reference = fields(&format!("{OPENSHIFT}/apiserver-reference.yaml"));
    let resource = fields(&format!("{OPENSHIFT}/vaultkmsconfig.yaml"));
    let of = |path: &str| reference[&format!("spec.encryption.kms.pluginConfig.{path}")].as_str();
    assert_eq!(of("apiVersion"), resource["apiVersion"]);
    assert_eq!(of("name"), resource["metadata.name"]);
    assert_eq!(of("resource"), format!("{}s", resource["kind"].to_lowercase()));
    for file in ["apiserver.yaml", "apiserver-reference.yaml"] {
        let fields = fields(&format!("{OPENSHIFT}/{file}"));
        let of = |path: &str| fields[path].as_str();
        assert_eq!((of("kind"), of("metadata.name")), ("APIServer", "cluster"), "{file}");
        let types = (of("spec.encryption.type"), of("spec.encryption.kms.type"));
        assert_eq!(types, ("KMS", "Vault"), "{file}");
    }
}

/// OpenShift takes `host[:port]/name@sha256:digest` with a dot in the host, of 75 to 447 characters, and no tag.
#[test]
fn openshift_gets_the_image_by_digest_and_starts_its_entry_point() {
    let settings = plugin("apiserver.yaml", "spec.encryption.kms.vault.");
    let image = &settings["kmsPluginImage"];
    assert!((75..=447).contains(&image.len()), "{image}");
    let (name, digest) = image.split_once("@sha256:").unwrap();
    let is_hex = |c: char| c.is_ascii_digit() || ('a'..='f').contains(&c);
    assert!(digest.len() == 64 && digest.chars().all(is_hex), "{image}");
    let (host, path) = name.split_once('/').unwrap();
    assert!(host.contains('.') && !path.is_empty() && !path.contains(':'), "{image}");
    // Its container has arguments and no command.
    let containerfile = fs::read_to_string(deploy("container/Containerfile")).unwrap();
    for line in ["COPY vault-kube-kms /vault-kube-kms", "ENTRYPOINT [\"/vault-kube-kms\"]"] {
        assert!(containerfile.lines().any(|found| found == line), "{line}");
    }
}

/// Returns the command line that OpenShift makes from these settings (`pluginlifecycle/vault.go`
/// of library-go), and from all settings that may be added.
#[test]
fn the_program_accepts_the_command_line_of_openshift() {
    let settings = plugin("apiserver.yaml", "spec.encryption.kms.vault.");
    let place = tempfile::tempdir().unwrap();
    let path = |name: &str| place.path().join(name).display().to_string();
    let mut args = vec![
        format!("-listen-address=unix://{}", path("kms-1.sock")),
        format!("-vault-address={}", settings["vaultAddress"]),
        format!("-vault-key-path={}", settings["vaultKeyPath"]),
        "-approle-role-id=00000000-4711-4711-4711-000000000000".to_owned(),
        format!("-approle-secret-id-path={}", path("secret-id")),
        format!("-tls-ca-file={}", path("ca-bundle.crt")),
    ];
    let optional = [
        "-tls-sni=vault.example.com",
        "-vault-namespace=admin/team",
        "-vault-auth-namespace=admin",
    ];
    for more in [&optional[..0], &optional] {
        args.extend(more.iter().map(|flag| (*flag).to_owned()));
        args.push("-metrics-port=0".to_owned());
        let sources = Sources::collect(&args, []);
        assert_eq!((&sources.errors, &sources.warnings), (&vec![], &vec![]), "{args:?}");
        let errors = Settings::read(&sources).err();
        assert!(errors.is_none(), "{args:?}: {errors:?}");
        // The program reads the same values, and names the key.
        let printed = Command::new(env!("CARGO_BIN_EXE_vault-kube-kms"))
            .arg("policy")
            .args(&args)
            .env_clear()
            .output()
            .unwrap();
        let text = String::from_utf8(printed.stdout).unwrap();
        assert!(printed.status.success() && text.contains("encrypt/kubernetes\""), "{text}");
    }
}
