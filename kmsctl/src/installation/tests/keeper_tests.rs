//! Types the commands of the step "keeper" in a written installation. A script stands for the CLI of a
//! new keeper.

use std::{os::unix::fs::PermissionsExt as _, path::PathBuf, process::Command};

use vault_kube_kms::config::settings;

use super::*;

/// Records each call with its namespace, has nothing yet, and keeps the policies.
const CLI: &str = r#"#!/bin/sh
printf '[%s] %s\n' "${VAULT_NAMESPACE-}" "$*" >>"$KEPT/calls"
case "$*" in
"policy write "*" -") cat >"$KEPT/$3.hcl" ;;
"policy write "*) cat "$4" >"$KEPT/$3.hcl" ;;
*" list "*) echo '{}' ;;
*-field=*) echo value ;;
"read "*) exit 2 ;;
esac
"#;

/// What the keeper was told.
struct Told {
    calls: String,
    place: tempfile::TempDir,
}

impl Told {
    fn policy(&self, name: &str) -> String {
        let path = self.place.path().join(format!("kept/{name}.hcl"));
        fs::read_to_string(path).unwrap_or_default().trim_end().to_owned()
    }

    fn require(&self, calls: &[&str]) {
        for call in calls {
            let is_told = self.calls.lines().any(|line| line == *call);
            assert!(is_told, "{call} is not among\n{}", self.calls);
        }
    }
}

fn write_with_mode(path: &Path, text: &str, mode: u32) {
    fs::write(path, text).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

/// Types `commands` in `directory`, or in the new installation of `answers`.
fn typed(commands: &[String], directory: Result<PathBuf, &Answers>) -> Told {
    let place = tempfile::tempdir().unwrap();
    let [programs, kept] = ["programs", "kept"].map(|name| place.path().join(name));
    for directory in [&programs, &kept] {
        fs::create_dir(directory).unwrap();
    }
    write_with_mode(&programs.join("vault"), CLI, 0o700);
    let directory = directory.unwrap_or_else(|answers| {
        let directory = place.path().join("installation");
        for file in files(answers).unwrap() {
            let path = directory.join(file.path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            write_with_mode(&path, &file.text, if file.is_program { 0o700 } else { 0o600 });
        }
        directory
    });
    let mut shell = Command::new("/bin/sh");
    shell.args(["-euc", &commands.join("\n")]).current_dir(directory).env_clear();
    shell.env("PATH", format!("{}:/usr/bin:/bin", programs.display())).env("KEPT", &kept);
    let out = shell.output().unwrap();
    assert!(out.status.success(), "{commands:?}: {}", String::from_utf8_lossy(&out.stderr));
    Told { calls: fs::read_to_string(kept.join("calls")).unwrap(), place }
}

fn keeper_step(answers: &Answers) -> Step {
    steps(answers).into_iter().find(|step| step.id == StepId::Keeper).unwrap()
}

fn told(answers: &Answers) -> Told {
    typed(&keeper_step(answers).commands, Err(answers))
}

/// Returns the policy that the provider prints.
fn printed(flags: &[&str]) -> String {
    let flags: Vec<_> = flags.iter().map(|flag| (*flag).to_owned()).collect();
    settings::policy(&Sources::collect(&flags, [])).unwrap().trim_end().to_owned()
}

/// The script once changed a policy that had the names already, and the role then had no right to the
/// key.
#[test]
fn the_keeper_gets_the_key_and_a_policy_for_it() {
    for (path, mount, key) in [
        ("transit/keys/kubernetes", "transit", "kubernetes"),
        ("transit/keys/kubernetes-prod", "transit", "kubernetes-prod"),
        ("transit/keys/kubernetes.kubernetes", "transit", "kubernetes.kubernetes"),
        ("team/transit/keys/kubernetes", "team/transit", "kubernetes"),
        ("transit/encrypt/keys/kubernetes", "transit/encrypt", "kubernetes"),
        ("transit/a/kubernetes/keys/kubernetes", "transit/a/kubernetes", "kubernetes"),
        ("a/keys/b/keys/c", "a/keys/b", "c"),
        ("/kubernetes/keys/transit", "kubernetes", "transit"),
    ] {
        for method in ["approle", "jwt"] {
            let mut answers = with(example(Form::Systemd), &[("vault-key-path", path)]);
            answers.flags.retain(|name, _| method == "approle" || !name.starts_with("approle"));
            let login = [("auth-method", method), ("jwt-path", "/etc/vault-kube-kms/jwt")];
            let told = told(&with(answers, &login));
            let key = format!("[] write -f {mount}/keys/{key} type=aes256-gcm96");
            told.require(&[&format!("[] secrets enable -path={mount} transit"), &key]);
            let expected = printed(&[&format!("--vault-key-path={path}")]);
            assert_eq!(told.policy("vault-kube-kms"), expected, "{path} {method}");
        }
    }
}

#[test]
fn the_older_flags_of_the_key_name_it_too() {
    let mut answers = with(
        example(Form::StaticPod),
        &[("transit-mount", "team/transit/"), ("transit-key", "kubernetes-2")],
    );
    answers.flags.remove("vault-key-path");
    let told = told(&answers);
    told.require(&["[] write -f team/transit/keys/kubernetes-2 type=aes256-gcm96"]);
    let expected = printed(&["--vault-key-path=team/transit/keys/kubernetes-2"]);
    assert_eq!(told.policy("vault-kube-kms"), expected);
}

/// With `deploy/vault` and the variables of the script, as `docs/install.md` uses it.
#[test]
fn the_script_gives_the_shipped_policies_the_names_of_its_variables() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/vault");
    let credentials = tempfile::tempdir().unwrap();
    let of = |variables: &str| {
        let command = format!("{variables} ./setup.sh {}", credentials.path().display());
        typed(&[command], Ok(directory.clone()))
    };
    let told = of("");
    assert_eq!(told.policy("vault-kube-kms"), repository("deploy/vault/policy.hcl").trim_end());
    let told = of("MOUNT=team/transit KEY=kubernetes-prod ROLE=kms AUTH_MOUNT=nodes/a WRAP_TTL=5m");
    assert_eq!(
        told.policy("kms"),
        printed(&["--vault-key-path=team/transit/keys/kubernetes-prod"])
    );
    let issuer = told.policy("kms-issuer");
    assert!(issuer.contains("path \"auth/nodes/a/role/kms/secret-id\" {"), "{issuer}");
    told.require(&[
        "[] auth enable -path=nodes/a approle",
        "[] write -f -wrap-ttl=5m -field=wrapping_token auth/nodes/a/role/kms/secret-id",
    ]);
}

/// Each setting that says where the provider looks also says where the step puts it.
#[test]
fn the_keeper_gets_the_role_where_the_provider_logs_in() {
    let wrapped = [
        ("vault-namespace", "admin/team/"),
        ("auth-mount", "nodes/kms/"),
        ("approle-secret-id-wrapped", "true"),
        ("require-enterprise", "true"),
    ];
    let told = told(&with(example(Form::StaticPod), &wrapped));
    let role = "auth/nodes/kms/role/vault-kube-kms";
    told.require(&[
        "[admin/team] secrets enable -path=transit transit",
        "[admin/team] auth enable -path=nodes/kms approle",
        "[admin/team] policy write vault-kube-kms -",
        &format!("[admin/team] read -field=role_id {role}/role-id"),
        &format!("[admin/team] write -f -wrap-ttl=10m -field=wrapping_token {role}/secret-id"),
    ]);
    assert!(told.calls.lines().all(|line| line.starts_with("[admin/team] ")), "{}", told.calls);
    let expected = printed(&[
        "--vault-key-path=transit/keys/kubernetes",
        "--vault-namespace=admin/team",
        "--auth-mount=nodes/kms",
        "--approle-secret-id-wrapped",
        "--require-enterprise",
    ]);
    assert_eq!(told.policy("vault-kube-kms"), expected);
    let issuer = told.policy("vault-kube-kms-issuer");
    assert!(issuer.contains(&format!("path \"{role}/secret-id\" {{")), "{issuer}");
}

/// A token has the policies of the namespace of its login. The script knows one namespace only.
#[test]
fn a_login_in_another_namespace_has_its_policy_there() {
    for (method, auth_namespace, there) in [
        ("approle", "admin", "admin"),
        ("approle", "root", ""),
        ("jwt", "admin", "admin"),
        ("jwt", "", "admin/team"),
    ] {
        let answers = with(
            example(Form::Systemd),
            &[
                ("vault-namespace", "admin/team"),
                ("vault-auth-namespace", auth_namespace),
                ("auth-method", method),
                ("auth-mount", "nodes"),
                ("jwt-path", "/etc/vault-kube-kms/jwt"),
            ],
        );
        assert!(!written(&answers).contains_key("1-keeper/setup.sh"), "{method} {auth_namespace}");
        let told = told(&answers);
        told.require(&[
            "[admin/team] secrets enable -path=transit transit",
            "[admin/team] write -f transit/keys/kubernetes type=aes256-gcm96",
            &format!("[{there}] policy write vault-kube-kms 1-keeper/policy.hcl"),
        ]);
        let way = "admin/team/".strip_prefix(there).unwrap().trim_start_matches('/');
        let path = format!("path \"{way}transit/encrypt/kubernetes\"");
        let policy = told.policy("vault-kube-kms");
        assert!(policy.contains(&path), "{policy}");
        let why = keeper_step(&answers).why;
        let place = format!("of the login {method} at auth/nodes in the namespace ");
        assert!(why.contains(&place), "{why}");
    }
}

#[test]
fn refuses_a_login_that_no_policy_can_help() {
    let beside = [("vault-namespace", "admin"), ("vault-auth-namespace", "team")];
    let error = files(&with(example(Form::StaticPod), &beside)).unwrap_err();
    assert_eq!(error.code, "answer-wrong");
    assert!(error.to_string().contains("--set vault-auth-namespace="), "{error}");
}

/// The administrator's CLI needs the same trust as the provider.
#[test]
fn the_step_names_the_variables_of_the_connection() {
    let answers = with(example(Form::StaticPod), &[("tls-sni", "vault.internal")]);
    let why = keeper_step(&answers).why;
    assert!(why.contains("VAULT_CACERT") && why.contains("VAULT_TLS_SERVER_NAME"), "{why}");
    let mut answers = answers;
    answers.flags.retain(|name, _| !name.starts_with("tls"));
    let why = keeper_step(&answers).why;
    assert!(!why.contains("VAULT_CACERT") && !why.contains("VAULT_TLS"), "{why}");
}

/// The files that the script wrote, under the names that the settings have for them.
#[test]
fn the_node_gets_the_credentials_under_the_names_of_the_settings() {
    let mut answers = with(
        example(Form::StaticPod),
        &[
            ("approle-role-id-path", "/etc/vault-kube-kms/team/role"),
            ("approle-secret-id-path", "/etc/vault-kube-kms/team/secret"),
            ("approle-secret-id-wrapped", "true"),
            ("approle-secret-id-cache", "/etc/vault-kube-kms/cache"),
            ("tls-ca-file", "/etc/vault-kube-kms/bao.pem"),
        ],
    );
    let step = |answers: &Answers| {
        steps(answers).into_iter().find(|step| step.id == StepId::Provider).unwrap()
    };
    let Step { commands, why, .. } = step(&answers);
    let commands = commands.join("\n");
    for pair in
        ["role-id /etc/vault-kube-kms/team/role", "secret-id /etc/vault-kube-kms/team/secret"]
    {
        assert!(commands.contains(&format!("-m 0400 {pair}\n")), "{commands}");
    }
    assert!(commands.contains("install -d -m 0755 /etc/vault-kube-kms/team\n"), "{commands}");
    assert!(!commands.contains("/cache"), "the provider writes it: {commands}");
    assert!(why.contains("bao.pem is the keeper's certificate authority"), "{why}");
    answers.flags.remove("tls-ca-file");
    let why = step(&answers).why;
    assert!(!why.contains("certificate authority"), "{why}");
}
