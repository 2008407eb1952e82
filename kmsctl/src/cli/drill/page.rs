//! The report as one page of HTML: no script, no other file. The template escapes all text.

use maud::{DOCTYPE, Markup, html};

use crate::domain::drill_report::{Report, Verdict, joined};

const STYLE: &str = "body{font:10.5pt/1.4 system-ui,sans-serif;margin:2em auto;max-width:52em;color:#111}\
    h1{font-size:16pt;margin:0 0 .2em}h2{font-size:11pt;margin:1.2em 0 .3em}p{margin:.3em 0}\
    table{border-collapse:collapse;width:100%}\
    td,th{border:1px solid #bbb;padding:.15em .5em;text-align:left;vertical-align:top;overflow-wrap:anywhere}\
    th{font-weight:600;background:#f3f3f3}table.facts th{width:11em}\
    td.n,th.n{text-align:right;white-space:nowrap}\
    .verdict{border:2px solid;padding:.5em .8em;font-weight:600}\
    .readable{color:#060}.unreadable,.damaged{color:#a00}\
    @page{margin:15mm}@media print{body{margin:0;max-width:none;font-size:9pt}tr{break-inside:avoid}}";

pub(super) fn page(report: &Report) -> Markup {
    let class = match report.verdict {
        Verdict::Readable => "readable",
        Verdict::Unreadable => "unreadable",
        Verdict::Damaged => "damaged",
    };
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta http-equiv="Content-Security-Policy"
                    content="default-src 'none'; style-src 'unsafe-inline'";
                title { "Restore drill of " (report.began) ": " (class) }
                style { (STYLE) }
            }
            body {
                h1 { "Restore drill: can this backup be read?" }
                p { (report.began) ", " (format!("{:.1}", report.seconds)) " s, " (report.program) }
                p.verdict.(class) { (report.sentence()) }
                @for limit in report.limits() { p { (limit) } }
                h2 { "Snapshot of etcd" }
                (snapshot(report))
                @if !report.keeper.place.is_empty() {
                    h2 { "Keeper of the key" }
                    (keeper(report))
                    h2 { "Seeds and objects" }
                    (totals(report))
                    (groups(report))
                }
                @if !report.failures.is_empty() {
                    h2 { "Objects that cannot be read" }
                    (failures(report))
                }
            }
        }
    }
}

fn fact(name: &str, value: impl maud::Render) -> Markup {
    html! { tr { th { (name) } td { (value) } } }
}

fn snapshot(report: &Report) -> Markup {
    let snapshot = &report.snapshot;
    html! {
        table.facts {
            (fact("file", &snapshot.file))
            (fact("size", format!("{} bytes", snapshot.size)))
            (fact("SHA-256", &snapshot.sha256))
            (fact("digest of etcdctl", snapshot.digest))
            @if let Some(revision) = snapshot.revision { (fact("revision", revision)) }
            (fact("keys", snapshot.prefixes.join(", ")))
            @if let Some(problem) = &snapshot.problem { (fact("damage", problem)) }
        }
    }
}

fn keeper(report: &Report) -> Markup {
    let keeper = &report.keeper;
    html! {
        table.facts {
            (fact("place", &keeper.place))
            @if let Some(range) = keeper.range() { (fact("unwraps with", range)) }
            (fact("key ids", keeper.key_ids.join(", ")))
            (fact("versions needed", joined(&report.versions.needed)))
            @if !report.versions.missing.is_empty() {
                (fact("versions missing", joined(&report.versions.missing)))
            }
        }
    }
}

fn totals(report: &Report) -> Markup {
    let totals = &report.totals;
    html! {
        table.facts {
            (fact("distinct seeds", format!("{}, of which {} unwrapped", totals.seeds, totals.seeds_unwrapped)))
            (fact("objects", format!(
                "{}: {} tested, {} of other providers, {} in clear",
                totals.objects, totals.tested, totals.other, totals.clear
            )))
            (fact("opened", format!("{} ({})", totals.opened, report.sample)))
            (fact("unreadable", totals.unreadable))
        }
    }
}

fn groups(report: &Report) -> Markup {
    html! {
        p {}
        table {
            tr {
                th { "resource" } th { "state" } th.n { "objects" } th.n { "opened" }
                th.n { "unreadable" }
            }
            @for group in &report.groups {
                tr {
                    td { (group.resource) } td { (group.state) } td.n { (group.objects) }
                    td.n { (group.opened) } td.n { (group.unreadable) }
                }
            }
        }
    }
}

fn failures(report: &Report) -> Markup {
    html! {
        table {
            tr { th { "object" } th { "reason" } th { "cause" } }
            @for failure in &report.failures {
                tr { td { (failure.object) } td { (failure.reason) } td { (failure.cause) } }
            }
        }
        @if report.unlisted() > 0 { p { "and " (report.unlisted()) " more" } }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{
        drill_report::{Failure, KeyVersions, SnapshotFacts, Totals},
        keeper_facts::KeeperFacts,
    };

    fn report(text: &str) -> Report {
        Report {
            verdict: Verdict::Unreadable,
            program: String::new(),
            began: String::new(),
            seconds: 0.5,
            snapshot: SnapshotFacts {
                file: text.to_owned(),
                size: 1,
                sha256: String::new(),
                digest: "fits",
                revision: Some(1),
                prefixes: Vec::new(),
                problem: Some(text.to_owned()),
            },
            keeper: KeeperFacts {
                place: text.to_owned(),
                key_ids: vec![text.to_owned()],
                ..KeeperFacts::default()
            },
            sample: String::new(),
            resource: None,
            totals: Totals { unreadable: 3, ..Totals::default() },
            versions: KeyVersions::default(),
            groups: Vec::new(),
            failures: vec![Failure {
                object: text.to_owned(),
                reason: "binding",
                cause: text.to_owned(),
            }],
        }
    }

    #[test]
    fn escapes_what_comes_from_etcd() {
        let page = page(&report("<script>alert(1)</script>")).into_string();
        assert!(!page.contains("<script"), "{page}");
        assert!(page.contains("&lt;script&gt;") && page.contains("and 2 more"), "{page}");
    }

    #[test]
    fn names_the_resource_when_only_one_was_tested() {
        let totals = Totals { tested: 10, opened: 10, ..Totals::default() };
        let report = Report { verdict: Verdict::Readable, totals, ..report("x") };
        let page = page(&Report { resource: Some("secrets".to_owned()), ..report }).into_string();
        assert!(!page.contains("Everything is readable"), "{page}");
        assert!(page.contains("Only objects of secrets were tested."), "{page}");
    }

    #[test]
    fn calls_everything_readable_only_when_all_was_opened() {
        for (opened, says) in [(9, "No failure was found"), (10, "Everything is readable")] {
            let totals = Totals { tested: 10, opened, ..Totals::default() };
            let report = Report { verdict: Verdict::Readable, totals, ..report("x") };
            assert!(page(&report).into_string().contains(says), "{opened}");
        }
    }
}
