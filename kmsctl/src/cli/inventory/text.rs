//! The inventory for people.

use super::Report;
use crate::{
    cli::table::{Column, table},
    domain::{
        finding::objects,
        judgement::{KeyJudgement, Verdict, is_transit},
        tally::{Count, Group, State},
    },
};

/// What no inventory sees.
pub(super) const NOT_SEEN: [&str; 4] = [
    "other prefixes, and resources in another etcd (--etcd-servers-overrides)",
    "other clusters that use the same key",
    "backups that are not given with --snapshot",
    "nodes that are not given with --node",
];

/// Returns the report as text.
pub(super) fn render(report: &Report) -> String {
    let mut parts = vec![summary(report), resources(report)];
    parts.extend(findings(report));
    parts.extend(report.judgement.keys.iter().map(|key| versions(report, key)));
    parts.push(judgement(report));
    parts.retain(|part| !part.is_empty());
    parts.join("\n\n")
}

fn summary(report: &Report) -> String {
    let tally = &report.read.tally;
    let states: Vec<_> = State::ALL
        .iter()
        .map(|state| (phrase(*state), tally.in_state(*state)))
        .filter(|(_, count)| *count > 0)
        .map(|(phrase, count)| format!("{count} {phrase}"))
        .collect();
    let resources = tally.resources().count();
    format!(
        "{}: {} of {resources} resources: {}",
        report.read.name,
        objects(tally.objects()),
        states.join(", ")
    )
}

const fn phrase(state: State) -> &'static str {
    match state {
        State::Ours => "encrypted by vault-kube-kms",
        State::OtherPlugin => "by another plugin",
        State::OtherProvider => "by another provider",
        State::Clear => "in clear",
        State::Unreadable => "UNREADABLE",
    }
}

fn resources(report: &Report) -> String {
    let mut rows = Vec::new();
    let (mut clear, mut clear_objects) = (0_u64, 0_u64);
    for (resource, groups) in report.read.tally.resources() {
        if groups.keys().all(|group| group.state == State::Clear) && resource != "secrets" {
            clear = clear.saturating_add(1);
            clear_objects =
                groups.values().fold(clear_objects, |sum, of| sum.saturating_add(of.objects));
            continue;
        }
        rows.extend(groups.iter().map(|(group, count)| row(resource, group, count)));
    }
    let mut lines = Vec::new();
    if !rows.is_empty() {
        lines.push(table(
            &[
                Column::Left("RESOURCE"),
                Column::Left("STATE"),
                Column::Left("PROVIDER"),
                Column::Left("KEY ID"),
                Column::Right("VERSION"),
                Column::Right("OBJECTS"),
                Column::Right("SEEDS"),
                Column::Left("OLDEST (REVISION)"),
            ],
            &rows,
        ));
    }
    if clear > 0 {
        lines.push(format!(
            "all other resources are in clear: {} of {clear}",
            objects(clear_objects)
        ));
    }
    lines.join("\n")
}

fn row(resource: &str, group: &Group, count: &Count) -> Vec<String> {
    let oldest = count
        .oldest
        .1
        .strip_prefix(resource)
        .map_or(count.oldest.1.as_str(), |rest| rest.trim_start_matches('/'));
    vec![
        resource.to_owned(),
        group.state.name().to_owned(),
        or_dash(&group.provider),
        or_dash(&group.key_id),
        group.claim.as_ref().map_or_else(|| "-".to_owned(), |claim| claim.version.to_string()),
        count.objects.to_string(),
        if count.seeds == 0 { "-".to_owned() } else { count.seeds.to_string() },
        format!("{oldest} ({})", count.oldest.0),
    ]
}

fn or_dash(text: &str) -> String {
    if text.is_empty() { "-".to_owned() } else { text.escape_default().to_string() }
}

fn findings(report: &Report) -> Option<String> {
    if report.findings.is_empty() {
        return None;
    }
    let lines = report
        .findings
        .iter()
        .map(|finding| format!("{}: {}: {}", finding.severity.name(), finding.code, finding.text));
    Some(lines.collect::<Vec<_>>().join("\n"))
}

/// Returns the table of the versions of one key.
fn versions(report: &Report, key: &KeyJudgement) -> String {
    let rows: Vec<_> = key
        .versions
        .iter()
        .map(|(version, usage)| {
            let backups: Vec<_> =
                usage.backups.iter().map(|(name, count)| format!("{name} ({count})")).collect();
            let mut writes = usage.written_by.clone();
            writes.extend(usage.waits_on.iter().map(|node| format!("{node} (next)")));
            let archived = !usage.archived_on.is_empty();
            vec![
                version.to_string(),
                usage.objects.to_string(),
                or_dash(&backups.join(", ")),
                or_dash(&writes.join(", ")),
                match (usage.is_needed(), archived) {
                    (true, true) => "needed, and archived",
                    (true, false) => "needed",
                    (false, true) => "archived",
                    (false, false) => "nothing that was read needs it",
                }
                .to_owned(),
            ]
        })
        .collect();
    let columns = [
        Column::Right("VERSION"),
        Column::Right(if report.is_live { "OBJECTS" } else { "LIVE OBJECTS" }),
        Column::Left("BACKUPS"),
        Column::Left("WRITTEN BY"),
        Column::Left(""),
    ];
    let name = if key.keeper.is_empty() { "the key" } else { &key.keeper };
    format!("versions of {name}\n{}", table(&columns, &rows))
}

fn judgement(report: &Report) -> String {
    let judgement = &report.judgement;
    let mut lines: Vec<String> = judgement.keys.iter().flat_map(verdict).collect();
    if judgement.keys.is_empty() {
        lines.push("no object needs a key version, and no node was asked".to_owned());
    }
    if !judgement.obstacles.is_empty() {
        lines.push("the highest safe version cannot be said, because:".to_owned());
        lines.extend(judgement.obstacles.iter().map(|why| format!("- {}: {}", why.code, why.text)));
    }
    if !judgement.missing.is_empty() {
        lines.push("nothing is promised, because a fact is missing:".to_owned());
        lines.extend(judgement.missing.iter().map(|why| format!("- {}: {}", why.code, why.text)));
    }
    lines.push(format!("not seen: {}", NOT_SEEN.join("; ")));
    if let Some((version, is_safe)) = report.asked {
        lines.push(if is_safe {
            format!("yes: min_decryption_version={version} is safe for what was read")
        } else {
            format!("NO: it is not shown that min_decryption_version={version} is safe")
        });
    }
    lines.join("\n")
}

fn verdict(key: &KeyJudgement) -> Vec<String> {
    let what = if is_transit(&key.keeper) {
        "min_decryption_version".to_owned()
    } else {
        format!("lowest version of {} to keep", key.keeper)
    };
    let because = if key.because.is_empty() {
        String::new()
    } else {
        format!(": {}", key.because.join(", and "))
    };
    let mut lines = match key.verdict {
        Verdict::Safe(version) => {
            vec![format!("{what}: {version} is the highest safe value{because}")]
        }
        Verdict::AtMost(version) => {
            vec![format!("{what}: no value above {version} is safe{because}")]
        }
        Verdict::Unknown => vec![format!("{what}: no value can be given")],
    };
    if let Some(without) = key.without_backups {
        lines.push(match key.verdict {
            Verdict::Safe(_) => format!("without the backups it would be {without}"),
            _ => format!("without the backups: no value above {without} is safe"),
        });
    }
    lines
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use vault_kube_kms::domain::key::KekVersion;

    use super::*;

    #[test]
    fn no_value_is_promised_while_a_fact_is_missing() {
        let version = |number| KekVersion::new(number).unwrap();
        let told = |verdict| {
            let key = KeyJudgement {
                keeper: "vault".to_owned(),
                verdict,
                because: Vec::new(),
                without_backups: Some(version(5)),
                versions: BTreeMap::new(),
            };
            super::verdict(&key).join("\n")
        };
        let safe = told(Verdict::Safe(version(2)));
        assert!(safe.ends_with("without the backups it would be 5"), "{safe}");
        let at_most = told(Verdict::AtMost(version(2)));
        assert!(at_most.ends_with("without the backups: no value above 5 is safe"), "{at_most}");
    }
}
