//! The answer of `rewrite`, and the role that it needs.

use std::{collections::BTreeMap, fmt::Write as _};

use serde_json::json;

use crate::domain::{
    resource::ResourceName,
    rewrite::{Ending, Failure, MAX_PASSES, Run, Tally},
};

/// How many failures the text lists.
const LISTED: usize = 20;

/// Returns the answer for people.
pub(super) fn text(run: &Run, ending: Ending) -> String {
    let mut text = format!(
        "{:<40} {:>9} {:>9} {:>9} {:>9} {:>9} {:>9}\n",
        "resource", "objects", "rewritten", "fresh", "by others", "gone", "failed"
    );
    for (resource, tally) in run.tallies() {
        // Writing to a string cannot fail.
        let _infallible = writeln!(
            text,
            "{resource:<40} {:>9} {:>9} {:>9} {:>9} {:>9} {:>9}",
            tally.objects, tally.rewritten, tally.fresh, tally.by_others, tally.gone, tally.failed
        );
    }
    text.push('\n');
    for failure in run.failures.iter().take(LISTED) {
        let _infallible = writeln!(text, "failed: {}: {}", named(failure), failure.why);
    }
    if run.failures.len() > LISTED {
        let _infallible = writeln!(text, "failed: more objects; --output=json lists them");
    }
    text + &verdict(run, ending)
}

/// Returns the answer for machines.
pub(super) fn json(run: &Run, ending: Ending) -> String {
    let resources: Vec<_> = run
        .tallies()
        .map(|(resource, tally)| {
            let Tally { objects, rewritten, fresh, by_others, gone, failed } = tally;
            json!({
                "resource": resource, "objects": objects, "rewritten": rewritten, "fresh": fresh,
                "byOthers": by_others, "gone": gone, "failed": failed,
            })
        })
        .collect();
    let failures: Vec<_> = run
        .failures
        .iter()
        .map(|failure| {
            json!({"resource": failure.resource, "object": failure.object, "why": failure.why})
        })
        .collect();
    json!({
        "server": run.demand.server,
        "dryRun": run.demand.dry_run,
        "passes": run.pass,
        "nothingLeft": ending == Ending::Proven,
        "verdict": verdict(run, ending),
        "resources": resources,
        "failures": failures,
    })
    .to_string()
}

fn verdict(run: &Run, ending: Ending) -> String {
    let failed: u64 = run.tallies().map(|(_, tally)| tally.failed).sum();
    let pass = run.pass;
    match ending {
        Ending::Proven => format!(
            "Nothing is left: in pass {pass} the API server stored no object again. This is true for \
             the API servers that answered."
        ),
        Ending::Failed if run.demand.dry_run => {
            format!("{failed} would fail. Nothing was written.")
        }
        Ending::Failed => format!(
            "{failed} failed, and may be left in an old form. All others are in the present form. \
             Remove the cause, then run the same command again."
        ),
        Ending::Dry => "No object would fail. Nothing was written. A dry run does not tell which \
                        objects are in an old form."
            .to_owned(),
        Ending::Again | Ending::Restless => format!(
            "Pass {pass} of {MAX_PASSES} still stored objects again. The key rotates too often, or \
             the API servers write under different key ids. Wait until all of them write under \
             one, then run the same command again."
        ),
    }
}

fn named(failure: &Failure) -> String {
    match &failure.object {
        Some(object) => format!("{} {object}", failure.resource),
        None => failure.resource.clone(),
    }
}

/// Returns a `ClusterRole` with the rights that the work needs, as YAML.
pub(super) fn role(resources: &[ResourceName]) -> String {
    let mut groups: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for ResourceName { plural, group } in resources {
        groups.entry(group).or_default().push(plural);
    }
    let mut text = "apiVersion: rbac.authorization.k8s.io/v1\nkind: ClusterRole\nmetadata:\n  \
                    name: vault-kube-kmsctl-rewrite\nrules:"
        .to_owned();
    for (group, plurals) in groups {
        let plurals: Vec<_> = plurals.iter().map(|plural| format!("{plural:?}")).collect();
        let plurals = plurals.join(", ");
        let _infallible = write!(
            text,
            "\n  - apiGroups: [{group:?}]\n    resources: [{plurals}]\n    verbs: [get, list, patch]"
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::rewrite::{Demand, Fate};

    fn ended(fate: Fate) -> (Run, Ending) {
        let mut run = Run::new(Demand {
            server: "https://localhost:6443".to_owned(),
            resources: vec!["secrets".to_owned()],
            namespace: None,
            selector: None,
            dry_run: false,
        });
        run.record("default/db".to_owned(), fate);
        run.turn_page(None);
        let ending = run.end_pass();
        (run, ending)
    }

    #[test]
    fn names_what_failed() {
        let (run, ending) = ended(Fate::Failed("the webhook w denies it".to_owned()));
        let told = text(&run, ending);
        assert!(told.contains("failed: secrets default/db: the webhook w denies it\n"), "{told}");
        let answer: serde_json::Value = serde_json::from_str(&json(&run, ending)).unwrap();
        assert_eq!(answer["nothingLeft"], false);
        assert_eq!(answer["failures"][0]["object"], "default/db");
        assert_eq!(answer["resources"][0]["failed"], 1);
    }

    #[test]
    fn says_that_nothing_is_left() {
        let (run, ending) = ended(Fate::Fresh);
        assert!(text(&run, ending).contains("Nothing is left: in pass 1 "));
        assert!(json(&run, ending).contains("\"nothingLeft\":true"));
    }

    #[test]
    fn the_role_has_one_rule_for_each_group() {
        let names = ["secrets", "configmaps", "widgets.example.com"]
            .map(|name| ResourceName::parse(name).unwrap());
        let role = role(&names);
        assert!(
            role.contains(r#"[""]"#) && role.contains(r#"["secrets", "configmaps"]"#),
            "{role}"
        );
        assert!(role.contains(r#"["example.com"]"#) && role.contains(r#"["widgets"]"#), "{role}");
    }
}
