//! Makes the bill of materials of a program, in the `CycloneDX` format.

use std::{collections::BTreeSet, fs, path::Path, process::Command};

use serde_json::Value;

use crate::{
    release::{CTL, NAME, PROVIDER, Program},
    run::{Failure, output, root, run, say},
    tools,
};

/// The shipped platform. Cargo's lists differ by platform.
const PLATFORM: &str = "x86_64-unknown-linux-gnu";

/// Names and versions of packages.
type Packages = BTreeSet<(String, String)>;

/// Returns the bill of materials of `program` on [`PLATFORM`]: the packages that are linked into
/// it, and the procedural macros that generated code. `date` is in seconds since 1970.
pub(crate) fn make(program: &Program, date: &str) -> Result<Value, Failure> {
    let cyclonedx = tools::cargo("cargo-cyclonedx", "0.5.9")?;
    // The tool writes one file beside the manifest of each package in the workspace.
    let draft = ".sbom-draft";
    run(Command::new(cyclonedx)
        .current_dir(root())
        .args(["cyclonedx", "--quiet", "--quiet", "--format=json", "--spec-version=1.5"])
        .args(["--no-build-deps", "--target", PLATFORM, "--override-filename", draft])
        .env("SOURCE_DATE_EPOCH", date))?;
    let written = |folder: &str| root().join(folder).join(format!("{draft}.json"));
    let text = fs::read_to_string(written(program.crate_folder))?;
    for folder in [PROVIDER.crate_folder, CTL.crate_folder, "kms-keeper", "xtask"] {
        fs::remove_file(written(folder))?;
    }
    // The tool names the package by its path on this machine, so the name replaces the path.
    let here = format!("path+file://{}", root().canonicalize()?.display());
    let mut bom: Value = serde_json::from_str(&text.replace(&here, NAME))?;
    strip_paths(&mut bom);
    leave_out(&mut bom, &linked(program, "normal")?);
    Ok(bom)
}

/// Removes packages that are not in `linked`. The tool reads `cargo metadata`, which also lists
/// optional dependencies of features that are not enabled.
fn leave_out(bom: &mut Value, linked: &Packages) {
    let mut left_out = BTreeSet::new();
    if let Some(components) = bom.get_mut("components").and_then(Value::as_array_mut) {
        components.retain(|component| {
            let is_linked = package(component).is_some_and(|package| linked.contains(&package));
            if let Some(id) = component.get("bom-ref").filter(|_| !is_linked) {
                left_out.insert(id.to_string());
            }
            is_linked
        });
    }
    let is_there = |id: &Value| !left_out.contains(&id.to_string());
    for of in bom.get_mut("dependencies").and_then(Value::as_array_mut).into_iter().flatten() {
        if let Some(on) = of.get_mut("dependsOn").and_then(Value::as_array_mut) {
            on.retain(is_there);
        }
    }
    if let Some(all) = bom.get_mut("dependencies").and_then(Value::as_array_mut) {
        all.retain(|of| of.get("ref").is_some_and(is_there));
    }
}

/// Removes the path of local packages from their package URLs.
fn strip_paths(value: &mut Value) {
    match value {
        Value::String(text) if text.starts_with("pkg:") => {
            if let Some((short, _)) = text.split_once("?download_url=file") {
                *text = short.to_owned();
            }
        }
        Value::Array(values) => values.iter_mut().for_each(strip_paths),
        Value::Object(fields) => fields.values_mut().for_each(strip_paths),
        _ => (),
    }
}

/// Compares `bom`, and the list that is embedded in the program at `path`, with Cargo's own lists.
pub(crate) fn check(program: &Program, bom: &Value, path: &Path) -> Result<(), Failure> {
    same("the bill of materials", &components(bom), &linked(program, "normal")?)?;
    // The list in the program may have more packages, because it also comes from `cargo metadata`.
    // `cargo audit bin` reads it.
    let (list, linked) = (embedded(path)?, linked(program, "normal,no-proc-macro")?);
    let surplus: Vec<_> = list.difference(&linked).collect();
    let name = program.name;
    say(&format!("the list in {name} has {} crates, {surplus:?} not linked", list.len()));
    same("the list in the program", &list.intersection(&linked).cloned().collect(), &linked)?;
    if bom.to_string().contains(root().to_str().ok_or("not UTF-8")?) {
        return Err("the bill of materials names the builder's folder".into());
    }
    Ok(())
}

fn same(what: &str, found: &Packages, expected: &Packages) -> Result<(), Failure> {
    let absent: Vec<_> = expected.difference(found).collect();
    let surplus: Vec<_> = found.difference(expected).collect();
    if absent.is_empty() && surplus.is_empty() && !expected.is_empty() {
        return Ok(());
    }
    Err(format!("{what} lacks {absent:?} and has {surplus:?}, which Cargo does not link").into())
}

/// Returns the packages that Cargo links into `program` by `edges`, without the program itself.
fn linked(program: &Program, edges: &str) -> Result<Packages, Failure> {
    let tree = output(
        Command::new(env!("CARGO"))
            .current_dir(root())
            .args(["tree", "--locked", "--quiet", "--package", program.name])
            .args(["--target", PLATFORM])
            .args(["--prefix=none", "--format={p}", "--edges", edges]),
    )?;
    let packages = tree.lines().filter_map(|line| {
        let (name, rest) = line.split_once(" v")?;
        let version = rest.split(' ').next()?;
        (name != program.name).then(|| (name.to_owned(), version.to_owned()))
    });
    Ok(packages.collect())
}

fn components(bom: &Value) -> Packages {
    packages(bom.get("components"), |_| true)
}

/// Returns the packages that `cargo auditable` embedded in the program and that are linked into it.
fn embedded(program: &Path) -> Result<Packages, Failure> {
    let json = auditable_info::json_from_file(program, auditable_info::Limits::default())?;
    let list: Value = serde_json::from_str(&json)?;
    let is_linked = |package: &Value| {
        package.get("kind").is_none_or(|kind| kind != "build") && package.get("root").is_none()
    };
    Ok(packages(list.get("packages"), is_linked))
}

fn packages(list: Option<&Value>, counts: impl Fn(&Value) -> bool) -> Packages {
    list.and_then(Value::as_array)
        .into_iter()
        .flatten()
        .filter(|package| counts(package))
        .filter_map(package)
        .collect()
}

fn package(entry: &Value) -> Option<(String, String)> {
    let text = |key| Some(entry.get(key)?.as_str()?.to_owned());
    Some((text("name")?, text("version")?))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_not_linked_is_left_out_everywhere() {
        let component = |name| json!({"bom-ref": name, "name": name, "version": "1.0.0"});
        let mut bom = json!({
            "components": [component("a"), component("b")],
            "dependencies": [{"ref": "root", "dependsOn": ["a", "b"]}, {"ref": "b"}],
        });
        leave_out(&mut bom, &Packages::from([("a".to_owned(), "1.0.0".to_owned())]));
        let expected = json!({
            "components": [component("a")],
            "dependencies": [{"ref": "root", "dependsOn": ["a"]}],
        });
        assert_eq!(bom, expected);
    }

    #[test]
    fn rejects_missing_and_surplus_packages() {
        let packages = |names: &[&str]| -> Packages {
            names.iter().map(|name| ((*name).to_owned(), "1.0.0".to_owned())).collect()
        };
        assert!(same("it", &packages(&["a", "b"]), &packages(&["a", "b"])).is_ok());
        for (found, expected) in [(&["a"][..], &["a", "b"][..]), (&["a", "b"], &["a"]), (&[], &[])]
        {
            assert!(same("it", &packages(found), &packages(expected)).is_err());
        }
    }
}
