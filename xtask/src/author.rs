//! Tests what authors of keepers start from: the template of a crate, and `examples/aws-kms`, a crate
//! outside of the workspace.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use crate::{
    run::{Failure, can_run, root, run, say, target},
    test::suite,
    tools::missing,
};

/// Tests a crate made from the template, then the keeper of AWS KMS, then its program with the client
/// of the API server.
pub(crate) fn test() -> Result<(), Failure> {
    say("Rust: a crate made from examples/keeper-template");
    let folder = tempfile::tempdir()?;
    generate(&root().join("examples/keeper-template"), folder.path())?;
    // Pins the dependencies to the tested versions. Cargo adds the new crate.
    fs::copy(root().join("Cargo.lock"), folder.path().join("Cargo.lock"))?;
    run(cargo(folder.path()).args(["test", "--quiet"]))?;
    if !can_run(Command::new("go").arg("version")) {
        let remedy = "install Go 1.26 to test the keeper of AWS KMS";
        return missing("GO", remedy).map(|_: Option<()>| ());
    }
    say("Rust: the keeper of AWS KMS, by its own lock file");
    let aws = root().join("examples/aws-kms");
    run(cargo(&aws).args(["test", "--quiet", "--locked"]))?;
    say("Go: its program, with the API server's own client");
    let server = builds().join("aws-kms-server");
    let mut go = Command::new("go");
    go.current_dir(aws.join("tests/server")).args(["build", "-mod=readonly", "-o"]).arg(&server);
    run(go.arg(".").env("CGO_ENABLED", "0"))?;
    let program = builds().join("debug/aws-kube-kms");
    let mut author = suite("author", "5m", None);
    run(author.env("AWS_KMS_SERVER", server).env("AWS_KUBE_KMS", program))
}

/// Returns the target directory. Both crates share it, because they have the same dependencies.
fn builds() -> PathBuf {
    target().join("author")
}

/// Returns a cargo command for the crate in `folder`.
fn cargo(folder: &Path) -> Command {
    let mut cargo = Command::new(env!("CARGO"));
    cargo.current_dir(folder).env("CARGO_TARGET_DIR", builds());
    cargo
}

/// Copies the template in `from` to `to` and fills in its placeholders, as `cargo generate` does.
fn generate(from: &Path, to: &Path) -> Result<(), Failure> {
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let (path, copy) = (entry.path(), to.join(entry.file_name()));
        if entry.file_type()?.is_dir() {
            fs::create_dir(&copy)?;
            generate(&path, &copy)?;
        } else if entry.file_name() != "cargo-generate.toml" {
            let filled = fill(&fs::read_to_string(&path)?, &root());
            fs::write(copy, filled.map_err(|problem| format!("{}: {problem}", path.display()))?)?;
        }
    }
    Ok(())
}

/// Replaces the placeholders of `text`: the name of the crate, and the path `provider`.
///
/// # Errors
/// Names a placeholder that has no value.
fn fill(text: &str, provider: &Path) -> Result<String, String> {
    let text = text
        .replace("{{project-name}}", "example-kube-kms")
        .replace("{{crate_name}}", "example_kube_kms")
        .replace("{{provider-path}}", &provider.display().to_string());
    match text.split_once("{{").and_then(|(_, rest)| rest.split_once("}}")) {
        Some((name, _)) => Err(format!("the placeholder {name:?} has no value")),
        None => Ok(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The keeper of AWS KMS is the measure of the port: when it needs more lines, the port asks too
    /// much of an author.
    #[test]
    fn a_keeper_of_a_cloud_service_needs_at_most_250_lines_of_code() {
        let mut lines = 0;
        for file in fs::read_dir(root().join("examples/aws-kms/src")).unwrap() {
            let text = fs::read_to_string(file.unwrap().path()).unwrap();
            let code = text.lines().map(str::trim);
            lines += code.filter(|line| !line.is_empty() && !line.starts_with("//")).count();
        }
        assert!((100..=250).contains(&lines), "{lines} lines");
    }

    #[test]
    fn fills_in_or_names_each_placeholder() {
        let filled = fill("{{crate_name}} {{provider-path}}", Path::new("/p"));
        assert_eq!(filled, Ok("example_kube_kms /p".to_owned()));
        assert!(fill("a {{keeper}}", Path::new("/p")).unwrap_err().contains("\"keeper\""));
    }
}
