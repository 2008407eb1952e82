//! The answer of `rewrite`, and the role that it needs.

use std::{collections::BTreeMap, fmt::Write as _};

use serde_json::json;

use super::Proof;
use crate::{
    cli::table::{Column, table},
    domain::{
        proof::Found,
        resource::ResourceName,
        rewrite::{Ending, Failure, MAX_PASSES, Run, Tally},
        tally::State,
    },
};

const COLUMNS: &[Column] = &[
    Column::Left("RESOURCE"),
    Column::Right("OBJECTS"),
    Column::Right("REWRITTEN"),
    Column::Right("FRESH"),
    Column::Right("BY OTHERS"),
    Column::Right("GONE"),
    Column::Right("FAILED"),
];

/// How many failures the text lists.
const LISTED: usize = 20;

/// The answer.
#[derive(Clone, Copy, Debug)]
pub(super) struct Report<'a> {
    pub(super) run: &'a Run,
    pub(super) ending: Ending,
    /// What etcd shows, if it was read.
    pub(super) proof: Option<&'a Proof>,
}

impl Report<'_> {
    /// Returns whether the answer is what the operator wants.
    pub(super) fn is_good(&self) -> bool {
        match self.ending {
            Ending::Proven => self.left() == 0,
            // What is left is what the run would be for.
            Ending::Dry => true,
            Ending::Failed | Ending::Restless | Ending::Again => false,
        }
    }

    /// Returns how many objects are left in etcd. 0 if it was not read.
    fn left(&self) -> u64 {
        let found = self.proof.iter().flat_map(|proof| &proof.found);
        found.filter(|found| found.is_left).map(|found| found.objects).sum()
    }

    /// Returns whether an object in clear text is left in etcd.
    fn clear(&self) -> bool {
        let mut found = self.proof.iter().flat_map(|proof| &proof.found);
        found.any(|found| found.is_left && found.group.state == State::Clear)
    }

    /// Returns the answer for people.
    pub(super) fn text(&self) -> String {
        let run = self.run;
        let rows: Vec<_> = run
            .tallies()
            .map(|(resource, tally)| {
                let Tally { objects, rewritten, fresh, by_others, gone, failed } = tally;
                let counts = [objects, rewritten, fresh, by_others, gone, failed];
                std::iter::once(resource.to_string())
                    .chain(counts.map(ToString::to_string))
                    .collect()
            })
            .collect();
        let mut text = table(COLUMNS, &rows) + "\n\n";
        for failure in run.failures.iter().take(LISTED) {
            let _infallible = writeln!(text, "failed: {}: {}", named(failure), failure.why);
        }
        if run.failures.len() > LISTED {
            let _infallible = writeln!(text, "failed: more objects; --output=json lists them");
        }
        if let Some(proof) = self.proof {
            let _infallible = writeln!(text, "in {}:", proof.etcd);
            for found in &proof.found {
                let left = if found.is_left {
                    format!(": LEFT, such as {}", found.example)
                } else {
                    String::new()
                };
                let _infallible = writeln!(
                    text,
                    "  {} of {} under {}{left}",
                    found.objects,
                    found.resource,
                    found.stored_under()
                );
            }
            text.push('\n');
        }
        text + &self.verdict() + &self.scope()
    }

    /// Returns which objects the verdict is about, if not about all. Begins with a space.
    fn scope(&self) -> String {
        let demand = &self.run.demand;
        let namespace = demand.namespace.as_ref().map(|name| format!("of the namespace {name}"));
        let labels = demand.selector.as_ref().map(|labels| format!("with the labels {labels}"));
        let parts: Vec<_> = namespace.into_iter().chain(labels).collect();
        if parts.is_empty() {
            return String::new();
        }
        format!(" Only objects {}, were asked for.", parts.join(", "))
    }

    /// Returns the answer for machines.
    pub(super) fn json(&self) -> String {
        let run = self.run;
        let resources: Vec<_> = run
        .tallies()
        .map(|(resource, tally)| {
            let Tally { objects, rewritten, fresh, by_others, gone, failed } = tally;
            json!({
                "resource": resource, "objects": objects, "rewritten": rewritten, "fresh": fresh,
                "by_others": by_others, "gone": gone, "failed": failed,
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
            "namespace": run.demand.namespace,
            "selector": run.demand.selector,
            "dry_run": run.demand.dry_run,
            "passes": run.pass,
            "nothing_left": self.ending == Ending::Proven && self.left() == 0,
            "verdict": self.verdict(),
            "resources": resources,
            "failures": failures,
            "etcd": self.proof.map(|proof| json!({
                "read": proof.etcd,
                "stored": proof.found.iter().map(stored).collect::<Vec<_>>(),
            })),
        })
        .to_string()
    }

    fn verdict(&self) -> String {
        let run = self.run;
        let left = self.left();
        let failed: u64 = run.tallies().map(|(_, tally)| tally.failed).sum();
        let pass = run.pass;
        match self.ending {
            Ending::Proven if self.clear() => format!(
                "{left} objects are left in etcd, some of them in clear text. The API server does \
                 not encrypt them: its EncryptionConfiguration does not name their resource, begins \
                 with identity, or is not read yet. Correct it. Then restart the API server, or wait \
                 two minutes if it reads changes by itself, and run the same command again."
            ),
            Ending::Proven if left > 0 => format!(
                "{left} objects are left in etcd, and the API server sees nothing to write. An API server \
             writes under another key id than this one. Wait until all of them write under one, then \
             run the same command again."
            ),
            Ending::Proven if self.proof.is_some() => format!(
                "Nothing is left: in pass {pass} the API server stored no object again, and etcd has no \
             object under another key."
            ),
            Ending::Proven => format!(
                "Nothing is left: in pass {pass} the API server stored no object again. This is true for \
             the API servers that answered, and does not prove that they encrypt. Name etcd with \
             --etcd-servers for a proof."
            ),
            Ending::Failed if run.demand.dry_run => {
                format!("{failed} would fail. Nothing was written.")
            }
            Ending::Failed if run.failures.iter().any(|failure| failure.object.is_none()) => {
                "At least one resource could not be listed to its end. Its objects may be left in an \
                 old form. Remove the cause, then run the same command again."
                    .to_owned()
            }
            Ending::Failed => format!(
                "{failed} failed, and may be left in an old form. All others are in the present form. \
             Remove the cause, then run the same command again."
            ),
            Ending::Dry if left > 0 || (self.proof.is_some() && run.demand.until_key_id.is_some()) => {
                format!("{left} objects are left. None would fail. Nothing was written.")
            }
            Ending::Dry => "No object would fail. Nothing was written. A dry run does not tell which \
                            objects are in an old form, unless etcd and --until-key-id are given."
                .to_owned(),
            Ending::Again | Ending::Restless => format!(
                "Pass {pass} of {MAX_PASSES} still stored objects again. The key rotates too often, or \
             the API servers write under different key ids. Wait until all of them write under \
             one, then run the same command again."
            ),
        }
    }
}

fn named(failure: &Failure) -> String {
    match &failure.object {
        Some(object) => format!("{} {object}", failure.resource),
        None => failure.resource.clone(),
    }
}

fn stored(found: &Found) -> serde_json::Value {
    json!({
        "resource": found.resource, "state": found.group.state.name(),
        "provider": found.group.provider, "key_id": found.group.key_id,
        "objects": found.objects, "example": found.example, "is_left": found.is_left,
    })
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
    use crate::domain::{
        rewrite::{Demand, Fate},
        tally::{Group, State},
    };

    fn ended(fate: Fate) -> (Run, Ending) {
        let mut run = Run::new(Demand {
            server: "https://localhost:6443".to_owned(),
            resources: vec!["secrets".to_owned()],
            namespace: None,
            selector: None,
            until_key_id: None,
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
        let report = Report { run: &run, ending, proof: None };
        let told = report.text();
        assert!(told.contains("failed: secrets default/db: the webhook w denies it\n"), "{told}");
        let answer: serde_json::Value = serde_json::from_str(&report.json()).unwrap();
        assert_eq!(answer["nothing_left"], false);
        assert_eq!(answer["failures"][0]["object"], "default/db");
        assert_eq!(answer["resources"][0]["failed"], 1);
    }

    #[test]
    fn says_that_nothing_is_left() {
        let (run, ending) = ended(Fate::Fresh);
        let report = Report { run: &run, ending, proof: None };
        assert!(report.is_good());
        assert!(report.text().contains("Nothing is left: in pass 1 "));
        assert!(report.json().contains("\"nothing_left\":true"));
    }

    #[test]
    fn nothing_is_left_only_where_it_looked() {
        let (mut run, ending) = ended(Fate::Fresh);
        run.demand.namespace = Some("blue".to_owned());
        run.demand.selector = Some("app=db".to_owned());
        let report = Report { run: &run, ending, proof: None };
        let text = report.text();
        let scope = "Only objects of the namespace blue, with the labels app=db, were asked for.";
        assert!(text.ends_with(scope), "{text}");
        let answer: serde_json::Value = serde_json::from_str(&report.json()).unwrap();
        assert_eq!((&answer["namespace"], &answer["selector"]), (&"blue".into(), &"app=db".into()));
    }

    fn found(state: State, is_left: bool) -> Proof {
        let found = Found {
            resource: "secrets".to_owned(),
            group: Group { state, provider: String::new(), key_id: String::new(), claim: None },
            objects: 3,
            example: "secrets/default/db".to_owned(),
            is_left,
        };
        Proof { etcd: "etcd".to_owned(), found: vec![found] }
    }

    #[test]
    fn says_why_objects_stay_in_clear_text() {
        let (run, ending) = ended(Fate::Fresh);
        let proof = found(State::Clear, true);
        let report = Report { run: &run, ending, proof: Some(&proof) };
        assert!(!report.is_good() && report.text().contains("The API server does not encrypt"));
    }

    #[test]
    fn a_dry_run_counts_what_is_left_only_if_the_key_id_is_known() {
        let (mut run, _) = ended(Fate::Fresh);
        run.demand.dry_run = true;
        let text = |run: &Run, proof: &Proof| {
            let report = Report { run, ending: Ending::Dry, proof: Some(proof) };
            (report.is_good(), report.text().contains("does not tell"))
        };
        // The API server may write under an id that no object has yet.
        assert_eq!(text(&run, &found(State::Ours, false)), (true, true));
        assert_eq!(text(&run, &found(State::Ours, true)), (true, false));
        run.demand.until_key_id = Some("v2.b".to_owned());
        assert_eq!(text(&run, &found(State::Ours, false)), (true, false));
    }

    #[test]
    fn what_etcd_shows_counts_more_than_what_the_api_server_says() {
        let (run, ending) = ended(Fate::Fresh);
        let mut found = Found {
            resource: "secrets".to_owned(),
            group: Group {
                state: State::Ours,
                provider: "vault".to_owned(),
                key_id: "v1.a".to_owned(),
                claim: None,
            },
            objects: 3,
            example: "secrets/default/db".to_owned(),
            is_left: true,
        };
        let mut proof = Proof { etcd: "etcd".to_owned(), found: vec![found.clone()] };
        let report = Report { run: &run, ending, proof: Some(&proof) };
        assert!(!report.is_good());
        let text = report.text();
        assert!(
            text.contains("3 of secrets under vault v1.a: LEFT, such as secrets/default/db"),
            "{text}"
        );
        let answer: serde_json::Value = serde_json::from_str(&report.json()).unwrap();
        assert_eq!(answer["nothing_left"], false);
        assert_eq!(answer["etcd"]["stored"][0]["key_id"], "v1.a");
        found.is_left = false;
        proof.found = vec![found];
        let report = Report { run: &run, ending, proof: Some(&proof) };
        assert!(report.is_good() && report.text().contains("etcd has no object under another key"));
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
