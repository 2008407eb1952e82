//! Tests `pkcs11 init`, `pkcs11 rotate` and `check`.

use std::{collections::BTreeSet, process::Output};

use super::token::{LABEL, MODULE, PIN, Token, succeeds};

fn told(output: &Output) -> String {
    let [out, err] = [&output.stdout, &output.stderr].map(|text| String::from_utf8_lossy(text));
    format!("{out}{err}")
}

#[test]
fn makes_a_key_once_and_then_rotates_it() {
    let Some(token) = Token::make() else { return };
    let missing = token.program(&["pkcs11", "rotate"], &[]).output().unwrap();
    assert!(!missing.status.success() && told(&missing).contains("key-missing"), "{missing:?}");
    token.init();
    let again = token.program(&["pkcs11", "init"], &[]).output().unwrap();
    assert!(!again.status.success() && told(&again).contains("pkcs11 rotate"), "{again:?}");
    let rotated = succeeds(&mut token.program(&["pkcs11", "rotate"], &[]));
    assert!(told(&rotated).contains("version 2 added to key \"kube-kms\""), "{rotated:?}");
    let listed = told(&token.tool_logged_in(&["--list-objects"]));
    assert_eq!(listed.matches("AES length 32").count(), 2, "{listed}");
    let access = "sensitive, always sensitive, never extractable, local";
    assert_eq!(listed.matches(access).count(), 2, "{listed}");
    assert_eq!(listed.matches("Usage:      encrypt, decrypt\n").count(), 2, "{listed}");
}

/// Each of the commands may fail. None leaves a second key of one version.
#[test]
fn concurrent_rotations_leave_no_version_twice() {
    let Some(token) = Token::make() else { return };
    token.init();
    let rotating = [(); 4].map(|()| {
        let mut command = token.program(&["pkcs11", "rotate"], &[]);
        std::thread::spawn(move || command.output().unwrap())
    });
    let outputs = rotating.map(|rotation| rotation.join().unwrap());
    let succeeded = outputs.iter().filter(|output| output.status.success()).count();
    for output in outputs.iter().filter(|output| !output.status.success()) {
        let text = told(output);
        let known = ["was made at the same time", "has several AES keys"];
        assert!(known.iter().any(|known| text.contains(known)), "{text}");
    }
    let listed = told(&token.tool_logged_in(&["--list-objects"]));
    let ids: Vec<_> = listed.lines().filter(|line| line.contains("ID:")).collect();
    let distinct: BTreeSet<_> = ids.iter().map(|id| id.trim().split_at(28).0).collect();
    assert_eq!((ids.len(), distinct.len()), (succeeded + 1, succeeded + 1), "{listed}");
}

#[test]
fn check_reports_module_token_login_mechanism_and_versions() {
    let Some(token) = Token::make() else { return };
    token.init();
    let socket = format!("--listen-address={}", token.at("kms.sock").display());
    let check = |flags: &[&str]| {
        let mut check = token.program(&["check"], &["--keeper=pkcs11", &socket]);
        told(&check.args(flags).output().unwrap())
    };
    let good = check(&[]);
    for line in [
        "PASS  files          --pkcs11-pin-file",
        "PASS  connection     the module is",
        "PASS  connection     the token is \"kms\"",
        "PASS  login          the token takes the PIN",
        "PASS  policy         the token encrypts with AES-GCM",
        "PASS  key            version 1 writes",
        "PASS  binding        version 1 wraps, unwraps, and rejects other associated data",
    ] {
        assert!(good.contains(line), "{line}: {good}");
    }
    let other = check(&["--pkcs11-token-label=other"]);
    assert!(other.contains("FAIL  connection     keeper-unreachable"), "{other}");
    let missing = check(&["--pkcs11-key-label=other"]);
    assert!(missing.contains("FAIL  key            key-missing"), "{missing}");
    let no_module = check(&["--pkcs11-module=/none.so"]);
    assert!(no_module.contains("FAIL  files") && no_module.contains("/none.so"), "{no_module}");
    token.write_pin("wrong-canary");
    let refused = check(&[]);
    assert!(refused.contains("FAIL  login          login-refused"), "{refused}");
    assert!(!refused.contains("wrong-canary"), "{refused}");
    token.write_pin(PIN);
    let low = check(&[]);
    assert!(low.contains("WARN  login          the token was given a wrong PIN"), "{low}");
}

/// A rotation then adds version 2.
#[test]
fn takes_a_key_of_other_means_for_the_first_version() {
    let Some(token) = Token::make() else { return };
    let key = ["--keygen", "--key-type", "AES:32", "--label", "kube-kms"];
    token.tool_logged_in(&[&key[..], &["--id", "01"]].concat());
    let socket = format!("--listen-address={}", token.at("kms.sock").display());
    let mut check = token.program(&["check"], &["--keeper=pkcs11", &socket]);
    let text = told(&check.output().unwrap());
    assert!(text.contains("PASS  key            version 1 writes"), "{text}");
    let rotated = succeeds(&mut token.program(&["pkcs11", "rotate"], &[]));
    assert!(told(&rotated).contains("version 2 added"), "{rotated:?}");
    token.tool_logged_in(&[&key[..], &["--id", "02"]].concat());
    let text = told(&check.output().unwrap());
    assert!(text.contains("FAIL  key            key-unusable"), "{text}");
}

/// This happens after a backup was restored beside the key.
#[test]
fn reports_two_objects_of_one_version() {
    let Some(token) = Token::make() else { return };
    token.init();
    token.rotate();
    let key = ["--keygen", "--key-type", "AES:32", "--label", "kube-kms"];
    token.tool_logged_in(&[&key[..], &["--id", &token.last_id()]].concat());
    let socket = format!("--listen-address={}", token.at("kms.sock").display());
    let mut check = token.program(&["check"], &["--keeper=pkcs11", &socket]);
    let text = told(&check.output().unwrap());
    assert!(text.contains("FAIL  key            key-unusable"), "{text}");
    assert!(text.contains("that are version "), "{text}");
}

#[test]
fn tells_tokens_of_one_label_by_serial_number() {
    let Some(token) = Token::make() else { return };
    let mut make = token.tool("softhsm2-util");
    make.args(["--init-token", "--free", "--label", LABEL, "--so-pin", "12345678", "--pin", PIN]);
    succeeds(&mut make);
    let both = token.program(&["pkcs11", "init"], &[]).output().unwrap();
    assert!(told(&both).contains("--pkcs11-token-serial"), "{both:?}");
    let mut tool = token.tool("pkcs11-tool");
    let listed = told(&succeeds(tool.args(["--module", MODULE, "--list-token-slots"])));
    let serial = listed.lines().find(|line| line.contains("serial num")).unwrap();
    let serial = format!("--pkcs11-token-serial={}", serial.rsplit(' ').next().unwrap());
    succeeds(&mut token.program(&["pkcs11", "init"], &["--pkcs11-token-label=", &serial]));
}
