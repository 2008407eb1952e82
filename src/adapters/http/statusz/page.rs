//! Renders the page of `/statusz`. The template escapes all text, because an error can quote a
//! server.

use maud::{DOCTYPE, Markup, html};

use super::{Problem, Statusz};

const STYLE: &str = "body{font:14px/1.5 system-ui,sans-serif;margin:2em;max-width:75em}\
    table{border-collapse:collapse;margin:.5em 0}\
    td,th{border:1px solid #ccc;padding:.2em .7em;text-align:left;vertical-align:top}\
    code{font-size:13px}b{font-weight:600}\
    .healthy,.writes,.open,.closed-breaker{color:#060}\
    .ailing,.waits,.starting,.half-open-breaker{color:#850}\
    .failing,.archived,.closed,.open-breaker{color:#a00}";

/// The document that describes each stable code.
const FAILURE_MODES: &str = "docs/failure-modes.md";

/// Returns the name of the program: the first word of the version.
fn program(s: &Statusz) -> &str {
    s.version.split(' ').next().unwrap_or_default()
}

pub(super) fn page(s: &Statusz) -> Markup {
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta http-equiv="refresh" content="10";
                title { (program(s)) ": " (s.state) }
                style { (STYLE) }
            }
            body {
                h1 { (program(s)) ": " span class=(s.state) { (s.state) } }
                @if let Some(problem) = &s.problem { p { (describe(problem)) } }
                p { b { "Next: " } (next(s)) }
                p {
                    (s.version) ", up for " (span(s.uptime_s)) ", at " (s.now) ". Outages: "
                    code { (s.outage_policy) } " after " (span(s.outage_grace_s)) ". "
                    "As JSON: " code { "/statusz?format=json" }
                }
                (sandbox(s))
                (keys(s))
                (session(s))
                (expiries(s))
                (endpoints(s))
                (errors(s))
            }
        }
    }
}

/// Returns what happens next if the operator does nothing.
fn next(s: &Statusz) -> String {
    match (s.state, s.takeover) {
        ("healthy", Some(next)) => format!(
            "version {} writes in {}, on all nodes at the same instant.",
            next.version,
            span(next.in_s)
        ),
        ("healthy", None) => "no change is due.".to_owned(),
        ("ailing", _) => "the last proven version keeps writing. The provider asks the keeper \
                          again every 2 s, and becomes healthy without a restart."
            .to_owned(),
        _ => "no Encrypt succeeds until the problem above is solved. The provider tries again \
              every 2 s, and becomes healthy without a restart."
            .to_owned(),
    }
}

fn sandbox(s: &Statusz) -> Markup {
    html! {
        p {
            "Sandbox: " (if s.sandbox.on { s.sandbox.in_force.join(", ") } else { "off".to_owned() }) "."
            @if !s.sandbox.missing.is_empty() { " Missing: " (s.sandbox.missing.join("; ")) "." }
        }
    }
}

fn keys(s: &Statusz) -> Markup {
    html! {
        h2 { "Key" }
        p {
            "Last read " (ago(s.key_read_s_ago)) "; the writing version was last proven "
            (ago(s.proven_s_ago)) ". "
        }
        table {
            tr { th { "version" } th { "role" } th { "key_id" } th { "created" } th { "writes from" } }
            @for v in &s.versions {
                tr {
                    td { (v.version) } td class=(v.role) { (v.role) } td { code { (v.key_id) } }
                    td { (v.created) } td { (v.writes_from) }
                }
            }
        }
        @if s.versions_seen > s.versions.len() {
            p { "Shown are the newest " (s.versions.len()) " of " (s.versions_seen) "." }
        }
    }
}

fn session(s: &Statusz) -> Markup {
    html! {
        @if let Some(session) = &s.session {
            h2 { "Session" }
            p {
                span class=(session.state) { (session.state) }
                "; login: " (session.login)
                @if let Some(logins) = session.logins { "; logins: " (logins) }
                @if let Some(left) = session.token_left_s { "; the token lasts " (span(left)) }
            }
            @if let Some(problem) = &session.problem { p { (describe(problem)) } }
        }
    }
}

fn expiries(s: &Statusz) -> Markup {
    html! {
        @if !s.expiries.is_empty() {
            h2 { "Expires" }
            table {
                tr { th { "what" } th { "at" } th { "left" } }
                @for e in &s.expiries {
                    tr {
                        td { (e.name) } td { (e.at) }
                        td class=(if e.is_soon { "failing" } else { "" }) {
                            @if e.left_s == 0 { "expired" } @else { (span(e.left_s)) }
                        }
                    }
                }
            }
        }
    }
}

fn endpoints(s: &Statusz) -> Markup {
    html! {
        @if !s.endpoints.is_empty() {
            h2 { "Endpoints" }
            table {
                tr { th { "address" } th { "breaker" } th { "asked first" } th { "last problem" } }
                @for e in &s.endpoints {
                    tr {
                        td { code { (e.address) } } td class={ (e.breaker) "-breaker" } { (e.breaker) }
                        td { @if e.preferred { "yes" } }
                        td { @if let Some(problem) = &e.problem { (describe(problem)) } }
                    }
                }
            }
        }
    }
}

fn errors(s: &Statusz) -> Markup {
    html! {
        h2 { "Last errors" }
        @if s.last_errors.is_empty() { p { "none" } } @else {
            table {
                tr { th { "last" } th { "what" } th { "error" } th { "times" } th { "first" } }
                @for e in &s.last_errors {
                    tr {
                        td { (e.last) } td { (e.what) } td { (describe(&e.problem)) }
                        td { (e.times) } td { (e.first) }
                    }
                }
            }
        }
    }
}

fn describe(problem: &Problem) -> Markup {
    html! {
        code { (problem.code) } ": " (problem.cause) ". Remedy: " (problem.remedy) ". "
        "More: " code { (FAILURE_MODES) "#" (problem.code) }
    }
}

fn ago(seconds: Option<u64>) -> String {
    seconds.map_or_else(|| "never".to_owned(), |seconds| format!("{} ago", span(seconds)))
}

/// Returns a duration in readable units: `59 s`, `59 min`, `3 h 20 min`, `2 d 4 h`.
fn span(seconds: u64) -> String {
    let (minutes, hours, days) = (seconds / 60, seconds / 3_600, seconds / 86_400);
    let both = |large: u64, unit: &str, small: u64, smaller: &str| match small {
        0 => format!("{large} {unit}"),
        _ => format!("{large} {unit} {small} {smaller}"),
    };
    match seconds {
        0..60 => format!("{seconds} s"),
        60..600 => both(minutes, "min", seconds % 60, "s"),
        600..3_600 => format!("{minutes} min"),
        3_600..86_400 => both(hours, "h", minutes % 60, "min"),
        _ => both(days, "d", hours % 24, "h"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prints_a_duration_in_readable_units() {
        for (seconds, text) in [
            (0, "0 s"),
            (59, "59 s"),
            (60, "1 min"),
            (75, "1 min 15 s"),
            (3_591, "59 min"),
            (3_600, "1 h"),
            (12_000, "3 h 20 min"),
            (187_200, "2 d 4 h"),
            (u64::MAX, "213503982334601 d 7 h"),
        ] {
            assert_eq!(span(seconds), text);
        }
    }
}
