//! Checks the files of `deploy/` that other programs read: scripts, alerts, the dashboard.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use serde::Deserialize;
use serde_json::json;

use crate::{
    debian,
    run::{Failure, output, root, run, say},
    test::suite,
};

/// Checks the scripts with `shellcheck`, and the alerts and the dashboard with `promtool`. Then a
/// real Prometheus watches providers while a test causes the condition of each alert.
pub(crate) fn all(bao: Option<&Path>) -> Result<(), Failure> {
    let packages = [("shellcheck", "0.9.0-1"), ("prometheus", "2.42.0+ds-5+deb12u1")];
    let Some(()) = debian::packages(&packages)? else { return Ok(()) };
    say("deploy: scripts, alerts, dashboard");
    run(Command::new("shellcheck").args(scripts(&root().join("deploy"))?))?;
    let monitoring = root().join("deploy/monitoring");
    let promtool = |arguments: &[&str]| {
        output(Command::new("promtool").current_dir(&monitoring).args(arguments)).map(drop)
    };
    promtool(&["check", "rules", "rules.yaml"])?;
    promtool(&["check", "config", "scrape.yaml"])?;
    promtool(&["test", "rules", "rules_test.yaml"])?;
    // promtool parses expressions only in rules, so the dashboard's expressions become rules.
    let rules = tempfile::NamedTempFile::new()?;
    let asked = expressions(&monitoring.join("dashboard.json"))?;
    let recorded = asked.iter().enumerate();
    let recorded =
        recorded.map(|(number, expr)| json!({"record": format!("r{number}"), "expr": expr}));
    let groups = json!({"groups": [{"name": "dashboard", "rules": recorded.collect::<Vec<_>>()}]});
    fs::write(rules.path(), groups.to_string())?;
    promtool(&["check", "rules", &rules.path().display().to_string()])?;
    say("Go: each alert, provoked");
    run(suite("monitoring", "10m", bao).arg("-v").env("PROMETHEUS", "/usr/bin/prometheus"))
}

/// Returns the shell scripts below `folder`.
fn scripts(folder: &Path) -> Result<Vec<PathBuf>, Failure> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            found.extend(scripts(&path)?);
        } else if path.extension().is_some_and(|extension| extension == "sh") {
            found.push(path);
        }
    }
    Ok(found)
}

/// Returns the expressions of the panels of a dashboard.
fn expressions(dashboard: &Path) -> Result<Vec<String>, Failure> {
    let dashboard: Dashboard = serde_json::from_str(&fs::read_to_string(dashboard)?)?;
    let targets = dashboard.panels.into_iter().flat_map(|panel| panel.targets);
    let expressions: Vec<_> = targets.map(|target| target.expr).collect();
    if expressions.is_empty() {
        Err("the dashboard has no expression".into())
    } else {
        Ok(expressions)
    }
}

#[derive(Deserialize)]
struct Dashboard {
    panels: Vec<Panel>,
}

#[derive(Deserialize)]
struct Panel {
    targets: Vec<Target>,
}

#[derive(Deserialize)]
struct Target {
    expr: String,
}
