mod keeper_tests;

use std::{collections::BTreeMap, fs, path::Path};

use k8s_openapi::api::core::v1::Pod;
use serde_json::Value;
use vault_kube_kms::config::{
    catalogue::Catalogue, flags::Takes, settings::Settings, sources::Sources,
};

use super::*;

fn repository(file: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(file)).unwrap()
}

/// The answers that the files of `deploy/` have as examples.
fn example(form: Form) -> Answers {
    let flags = [
        ("vault-address", "https://vault.example.com:8200"),
        ("vault-key-path", "transit/keys/kubernetes"),
        ("tls-ca-file", "/etc/vault-kube-kms/ca.pem"),
    ];
    let flags = flags.map(|(name, value)| (name.to_owned(), value.to_owned()));
    let resources = vec!["secrets".to_owned()];
    Answers { form, flags: flags.into(), image: None, resources, begin: Begin::Read }.completed()
}

fn with(mut answers: Answers, flags: &[(&str, &str)]) -> Answers {
    let flags = flags.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    answers.flags.extend(flags);
    answers
}

fn written(answers: &Answers) -> BTreeMap<&'static str, String> {
    files(answers).unwrap().into_iter().map(|file| (file.path, file.text)).collect()
}

/// Returns the settings that the provider reads from the written files.
fn accepted(answers: &Answers) -> Settings {
    let files = written(answers);
    let sources = match answers.form {
        Form::StaticPod => {
            let pod: Pod =
                serde_saphyr::from_str(&files["2-provider/vault-kube-kms.yaml"]).unwrap();
            Sources::collect(pod.spec.unwrap().containers[0].args.as_ref().unwrap(), [])
        }
        Form::Systemd => {
            let lines = files["2-provider/vault-kube-kms.env"].lines();
            let set = lines.filter(|line| !line.starts_with('#') && !line.is_empty());
            let set = set.map(|line| line.split_once('=').unwrap());
            let set =
                set.map(|(name, value)| (name.to_owned(), value.trim_matches('"').to_owned()));
            let listen = format!("--listen-address=unix://{SOCKET}");
            Sources::collect(&[listen], set.collect::<Vec<_>>())
        }
    };
    Settings::read(&sources).unwrap_or_else(|errors| panic!("{errors:?}"))
}

#[test]
fn the_example_gives_the_files_of_deploy() {
    for (form, path, shipped) in [
        (Form::StaticPod, "1-keeper/policy.hcl", "vault/policy.hcl"),
        (Form::StaticPod, "1-keeper/policy-issuer.hcl", "vault/policy-issuer.hcl"),
        (Form::StaticPod, "1-keeper/setup.sh", "vault/setup.sh"),
        (Form::StaticPod, "2-provider/vault-kube-kms.yaml", "static-pod/vault-kube-kms.yaml"),
        (Form::StaticPod, "2-provider/tmpfiles.conf", "static-pod/tmpfiles.conf"),
        (Form::StaticPod, "3-api-server/1-read.yaml", "kubernetes/encryption-config/1-read.yaml"),
        (Form::StaticPod, "3-api-server/2-write.yaml", "kubernetes/encryption-config/2-write.yaml"),
        (Form::StaticPod, "3-api-server/3-only.yaml", "kubernetes/encryption-config/3-only.yaml"),
        (
            Form::StaticPod,
            "3-api-server/patches/kube-apiserver0+json.yaml",
            "kubeadm/patches/kube-apiserver0+json.yaml",
        ),
        (Form::Systemd, "2-provider/vault-kube-kms.service", "systemd/vault-kube-kms.service"),
        (Form::Systemd, "2-provider/sysusers.conf", "systemd/sysusers.conf"),
        (Form::Systemd, "2-provider/tmpfiles.conf", "systemd/tmpfiles.conf"),
        (Form::Systemd, "4-protect/rules.yaml", "monitoring/rules.yaml"),
    ] {
        let files = written(&example(form));
        assert_eq!(files[path], repository(&format!("deploy/{shipped}")), "{path}");
    }
}

/// Only the lines of the answers differ from the shipped file.
#[test]
fn the_environment_file_sets_the_answers_only() {
    let text = &written(&example(Form::Systemd))["2-provider/vault-kube-kms.env"];
    let shipped = repository("deploy/systemd/vault-kube-kms.env");
    assert_eq!(text.lines().count(), shipped.lines().count());
    let differ = text.lines().zip(shipped.lines()).filter(|(ours, shipped)| ours != shipped);
    let differ: Vec<_> = differ.map(|(ours, _)| ours).collect();
    assert_eq!(
        differ,
        [
            "VAULT_KUBE_KMS_VAULT_ADDRESS=\"https://vault.example.com:8200\"",
            "VAULT_KUBE_KMS_VAULT_KEY_PATH=\"transit/keys/kubernetes\"",
            "VAULT_KUBE_KMS_TLS_CA_FILE=\"/etc/vault-kube-kms/ca.pem\"",
            "VAULT_KUBE_KMS_APPROLE_ROLE_ID_PATH=\"/etc/vault-kube-kms/role-id\"",
            "VAULT_KUBE_KMS_APPROLE_SECRET_ID_PATH=\"/etc/vault-kube-kms/approle-secret-id\"",
        ]
    );
}

/// Every login of the provider, with the flags that it needs.
#[test]
fn the_provider_accepts_the_files_of_each_login() {
    let catalogue = Catalogue::built_in();
    let Takes::OneOf(_, methods) = catalogue.find("auth-method").unwrap().takes else { panic!() };
    for method in methods {
        let mut answers = example(Form::StaticPod);
        answers.flags.retain(|name, _| !name.starts_with("approle"));
        let mut answers = with(answers, &[("auth-method", method)]).completed();
        if *method == "kubernetes" {
            answers = with(answers, &[("kubernetes-jwt-path", "/etc/vault-kube-kms/jwt")]);
        }
        for _ in 0..9 {
            let Some((flag, _)) = answers.wrong_flag() else { break };
            let value = match flag.as_str() {
                "spiffe-socket" => "unix:///etc/vault-kube-kms/agent.sock",
                flag if flag.ends_with("role") || flag.ends_with("audience") => "role",
                _ => "/etc/vault-kube-kms/file",
            };
            answers = with(answers, &[(&flag, value)]);
        }
        for form in [Form::StaticPod, Form::Systemd] {
            let answers = Answers { form, ..answers.clone() };
            accepted(&answers);
        }
    }
}

#[test]
fn the_embedded_keeper_is_for_the_service() {
    let mut answers = with(example(Form::Systemd), &[("keeper", "local")]);
    answers.flags.retain(|name, _| name == "keeper");
    accepted(&answers);
    assert!(!written(&answers).contains_key("1-keeper/policy.hcl"));
    let pod = Answers { form: Form::StaticPod, ..answers };
    assert_eq!(files(&pod).unwrap_err().code, "path-elsewhere");
}

#[test]
fn arguments_and_image_replace_those_of_the_example() {
    let changes = [
        ("vault-address", "https://10.0.0.1:8200,https://[fd00::1]:8200"),
        ("key-lineage", "prod:"),
        ("health-address", "::1"),
    ];
    let mut answers = with(example(Form::StaticPod), &changes);
    answers.image = Some("registry.example.com/kms@sha256:00".to_owned());
    answers.flags.retain(|name, _| name != "tls-ca-file");
    let text = &written(&answers)["2-provider/vault-kube-kms.yaml"];
    assert!(!text.contains("ca.pem") && !text.contains("image: localhost"), "{text}");
    let pod: Pod = serde_saphyr::from_str(text).unwrap();
    let container = &pod.spec.unwrap().containers[0];
    assert_eq!(container.image.as_deref(), Some("registry.example.com/kms@sha256:00"));
    let args = container.args.as_ref().unwrap();
    assert!(args.contains(&"--key-lineage=prod:".to_owned()), "{args:?}");
    assert!(args.contains(&"--health-address=::1".to_owned()), "{args:?}");
}

#[test]
fn the_stages_name_the_resources() {
    let mut answers = example(Form::Systemd);
    answers.resources = vec!["secrets".to_owned(), "widgets.example.com".to_owned()];
    for stage in ["1-read", "2-write", "3-only"] {
        let text = &written(&answers)[format!("3-api-server/{stage}.yaml").as_str()];
        let config: Value = serde_saphyr::from_str(text).unwrap();
        assert_eq!(config["resources"][0]["resources"][1], "widgets.example.com", "{text}");
    }
}

#[test]
fn refuses_what_cannot_work() {
    let example = || example(Form::StaticPod);
    for (answers, code) in [
        (with(example(), &[("vault-address", "nonsense")]), "answer-wrong"),
        (with(example(), &[("vault-namespace", "a\"b")]), "answer-wrong"),
        (with(example(), &[("key-lineage", "$HOME")]), "answer-wrong"),
        (with(example(), &[("approle-role-id-path", "/etc/vault-kube-kms/a;b")]), "answer-wrong"),
        (with(example(), &[("approle-role-id-path", "/etc/vault-kube-kms/a b")]), "answer-wrong"),
        (Answers { image: Some("a\nb".to_owned()), ..example() }, "answer-wrong"),
        (Answers { resources: vec![], ..example() }, "resource-wrong"),
        (Answers { resources: vec!["secrets]".to_owned()], ..example() }, "resource-wrong"),
        (with(example(), &[("tls-ca-file", "/etc/ssl/ca.pem")]), "path-elsewhere"),
        (with(example(), &[("tls-ca-file", "/etc/vault-kube-kms2/ca.pem")]), "path-elsewhere"),
        // A static Pod has no token of a service account (FalcoSuessgott/vault-kubernetes-kms#81).
        (
            with(example(), &[("auth-method", "kubernetes"), ("kubernetes-role", "r")]),
            "path-elsewhere",
        ),
    ] {
        let error = files(&answers).unwrap_err();
        assert_eq!(error.code, code, "{error}");
    }
}

/// `docs/install.md` and the README have the same commands in the same order.
#[test]
fn the_commands_are_those_of_the_guide() {
    let guide = repository("docs/install.md");
    let readme = readme(&example(Form::StaticPod));
    let mut places = (0, 0);
    for command in [
        "setup.sh credentials",
        "/etc/tmpfiles.d/vault-kube-kms.conf",
        "systemd-tmpfiles --create vault-kube-kms.conf",
        "install -d -m 0755 /etc/vault-kube-kms",
        "install -o 65532 -g 65532 -m 0400 role-id",
        "vault-kube-kms check",
        "| grep ^vault_kube_kms_healthy",
        "1-read",
        "2-write",
        "3-only",
    ] {
        for (name, text, place) in
            [("guide", &guide, &mut places.0), ("README", &readme, &mut places.1)]
        {
            let found = text.get(*place..).unwrap().find(command);
            *place += found.unwrap_or_else(|| panic!("{command} is not in its place: {name}"));
        }
    }
}

#[test]
fn a_new_cluster_begins_with_the_second_stage() {
    let answers = Answers { begin: Begin::Write, ..example(Form::Systemd) };
    let ids: Vec<_> = steps(&answers).iter().map(|step| step.id).collect();
    assert!(!ids.contains(&StepId::Read) && ids.contains(&StepId::Write));
    assert!(readme(&answers).contains("$EDITOR /etc/kubernetes/manifests/kube-apiserver.yaml"));
}

#[test]
fn the_readme_of_each_form() {
    insta::assert_snapshot!("static_pod", readme(&example(Form::StaticPod)));
    insta::assert_snapshot!("systemd", readme(&example(Form::Systemd)));
}

const MANIFEST: &str = r"apiVersion: v1
kind: Pod
metadata: {name: kube-apiserver}
spec:
  containers:
    - name: kube-apiserver
      command:
        - kube-apiserver
        - --encryption-provider-config=/etc/kubernetes/encryption/encryption-config.yaml
      volumeMounts:
        - {name: encryption, mountPath: /etc/kubernetes/encryption, readOnly: true}
        - {name: vault-kube-kms, mountPath: /run/vault-kube-kms}
  volumes:
    - {name: encryption, hostPath: {path: /etc/kubernetes/encryption, type: Directory}}
    - {name: vault-kube-kms, hostPath: {path: /run/vault-kube-kms, type: Directory}}
";

/// A node on which the provider works, and the API server has this stage.
fn node(stage: &str) -> Facts {
    let config = written(&example(Form::StaticPod))[stage].clone();
    Facts {
        wrong_files: Ok(vec![]),
        status: Ok(Status { healthz: "ok".to_owned(), key_id: "v1.x".to_owned() }),
        manifest: Ok(MANIFEST.to_owned()),
        encryption_config: Ok(Some(config)),
        api_server: Ok(Ok(())),
    }
}

/// Returns one letter for each step, and the next step.
fn told(facts: &Facts) -> (String, Option<StepId>) {
    let progress = progress(&example(Form::StaticPod), facts);
    let letters = progress.iter().map(|step| match step.state {
        State::Done => 'd',
        State::NotDone => 'n',
        State::Unknown => '?',
    });
    (letters.collect(), next(&progress).map(|step| step.step))
}

#[test]
fn says_which_steps_are_done() {
    let [read, write, only] =
        ["3-api-server/1-read.yaml", "3-api-server/2-write.yaml", "3-api-server/3-only.yaml"];
    let nothing = Facts {
        wrong_files: Ok(vec!["/etc/vault-kube-kms/role-id".to_owned()]),
        status: Err("connection refused".to_owned()),
        manifest: Ok(MANIFEST
            .lines()
            .filter(|line| !line.contains("--enc"))
            .collect::<Vec<_>>()
            .join("\n")),
        encryption_config: Ok(None),
        api_server: Err("give --kubeconfig".to_owned()),
    };
    let sealed = Status { healthz: "keeper-sealed: unseal it".to_owned(), key_id: String::new() };
    for (what, facts, letters, next) in [
        ("nothing", nothing.clone(), "nnnnnnn", Some(StepId::Keeper)),
        (
            "files",
            Facts { wrong_files: Ok(vec![]), ..nothing.clone() },
            "?dnnnnn",
            Some(StepId::Serves),
        ),
        (
            "a sealed keeper",
            Facts { wrong_files: Ok(vec![]), status: Ok(sealed), ..nothing.clone() },
            "?dnnnnn",
            Some(StepId::Serves),
        ),
        (
            "the provider",
            Facts { manifest: nothing.manifest.clone(), ..node(read) },
            "dddnnnn",
            Some(StepId::Read),
        ),
        (
            "no file",
            Facts { encryption_config: Ok(None), ..node(read) },
            "dddnnnn",
            Some(StepId::Read),
        ),
        ("reads", node(read), "ddddnnn", Some(StepId::Write)),
        (
            "the API server does not reach the provider",
            Facts { api_server: Ok(Err("500".to_owned())), ..node(read) },
            "dddnnnn",
            Some(StepId::Read),
        ),
        ("writes", node(write), "ddddd?n", Some(StepId::Rewrite)),
        ("only", node(only), "ddddddd", None),
        (
            "another kind of node",
            Facts { manifest: Err("no manifest".to_owned()), ..node(read) },
            "ddd????",
            Some(StepId::Rewrite),
        ),
    ] {
        assert_eq!(told(&facts), (letters.to_owned(), next), "{what}");
    }
}

/// Only etcd shows an object in clear text. An API server that has not yet read the second stage has
/// nothing to store again, and 3-only.yaml then makes the objects in clear text unreadable.
#[test]
fn the_rewrite_reads_etcd_and_waits_for_the_api_servers() {
    let answers = example(Form::StaticPod);
    let command = "vault-kube-kmsctl rewrite --resource=secrets \
                   --api-server-manifest=/etc/kubernetes/manifests/kube-apiserver.yaml";
    let all = steps(&answers);
    let step = |id| all.iter().find(|step| step.id == id).unwrap();
    assert_eq!(step(StepId::Rewrite).commands, [command]);
    assert!(step(StepId::Rewrite).at.contains("control-plane node"));
    for said in ["nothing is left", "from etcd", "two minutes"] {
        assert!(step(StepId::Rewrite).why.contains(said), "{said}");
    }
    assert!(step(StepId::Write).why.contains("two minutes"), "{}", step(StepId::Write).why);

    let typed = |key_id: &str| {
        let status = Status { healthz: "ok".to_owned(), key_id: key_id.to_owned() };
        let facts = Facts { status: Ok(status), ..node("3-api-server/2-write.yaml") };
        next(&progress(&answers, &facts)).unwrap().commands.join("\n")
    };
    assert_eq!(typed("v1.x_-"), format!("{command} --until-key-id=v1.x_-"));
    // The text is pasted into a shell.
    for strange in ["", "a;b", "$(id)", "a\nb"] {
        assert_eq!(typed(strange), command);
    }
}

/// A mounted file or socket is never seen again after it was replaced, and a directory that is not
/// mounted is the most frequent fault (kubernetes/kubeadm#640, kubernetes/cloud-provider-openstack#1313).
#[test]
fn names_the_wrong_mounts_of_the_api_server() {
    let socket = "mountPath: /run/vault-kube-kms}";
    for (from, to, expected) in [
        (socket, "mountPath: /run/other}", "does not mount /run/vault-kube-kms"),
        (socket, "mountPath: /run/vault-kube-kms/vault-kube-kms.sock}", "mount the directory"),
        (
            "{path: /run/vault-kube-kms, type: Directory}",
            "{path: /run/vault-kube-kms/vault-kube-kms.sock, type: Socket}",
            "mount the directory",
        ),
        (
            "mountPath: /etc/kubernetes/encryption,",
            "mountPath: /etc/x,",
            "does not mount /etc/kubernetes",
        ),
        ("encryption-config.yaml", "other.yaml", "and not /etc/kubernetes/encryption"),
    ] {
        let facts =
            Facts { manifest: Ok(MANIFEST.replace(from, to)), ..node("3-api-server/2-write.yaml") };
        let progress = progress(&example(Form::StaticPod), &facts);
        let read = progress.iter().find(|step| step.step == StepId::Read).unwrap();
        assert_eq!(read.state, State::NotDone, "{to}");
        assert!(read.why.contains(expected), "{}", read.why);
    }
}

#[test]
fn the_lowest_stage_of_the_resources_counts() {
    let rule =
        |names: &str, order: &str| format!("  - resources: [{names}]\n    providers: [{order}]\n");
    let kms = format!("{{kms: {{apiVersion: v2, name: a, endpoint: 'unix://{SOCKET}'}}}}");
    let other = "{kms: {apiVersion: v2, name: b, endpoint: 'unix:///run/other.sock'}}";
    let (reads, writes) =
        (format!("{{identity: {{}}}}, {kms}"), format!("{kms}, {{identity: {{}}}}"));
    for (rules, letters) in [
        (rule("secrets", &writes) + &rule("configmaps", &reads), "ddddnnn"),
        (rule("secrets", &writes), "dddnnnn"),
        // The first rule that covers a resource counts.
        (rule("'*.*'", &writes) + &rule("secrets", &reads), "ddddd?n"),
        (rule("'*.'", &writes), "ddddd?n"),
        (rule("'*.apps'", &writes), "dddnnnn"),
        (rule("secrets, configmaps", other), "dddnnnn"),
        (rule("secrets, configmaps", &format!("{other}, {kms}")), "ddddnnn"),
    ] {
        let text = format!("kind: EncryptionConfiguration\nresources:\n{rules}");
        let facts =
            Facts { encryption_config: Ok(Some(text.clone())), ..node("3-api-server/1-read.yaml") };
        let mut answers = example(Form::StaticPod);
        answers.resources.push("configmaps".to_owned());
        let told = progress(&answers, &facts);
        let told: String = told
            .iter()
            .map(|step| match step.state {
                State::Done => 'd',
                State::NotDone => 'n',
                State::Unknown => '?',
            })
            .collect();
        assert_eq!(told, letters, "{text}");
    }
}

#[test]
fn what_is_not_yaml_is_not_known() {
    for text in ["", "kind: Pod", "kind: List\nresources: []", "a: [", "\u{0}"] {
        let facts = Facts {
            encryption_config: Ok(Some(text.to_owned())),
            ..node("3-api-server/1-read.yaml")
        };
        assert_eq!(told(&facts).0, "ddd????", "{text:?}");
        let facts = Facts { manifest: Ok(text.to_owned()), ..node("3-api-server/1-read.yaml") };
        assert_eq!(told(&facts).0, "ddd????", "{text:?}");
    }
}
