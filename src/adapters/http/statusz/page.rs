//! The page. All text goes through the template, which escapes it: an error can quote a server.

use maud::{DOCTYPE, Markup, html};

use super::{Problem, Statusz};

const STYLE: &str = "body{font:14px/1.5 system-ui,sans-serif;margin:2em;max-width:75em}\
    table{border-collapse:collapse;margin:.5em 0}\
    td,th{border:1px solid #ccc;padding:.2em .7em;text-align:left;vertical-align:top}\
    code{font-size:13px}.healthy{color:#060}.ailing{color:#850}.failing{color:#a00}";

pub(super) fn page(s: &Statusz) -> Markup {
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta http-equiv="refresh" content="10";
                title { "vault-kube-kms: " (s.state) }
                style { (STYLE) }
            }
            body {
                h1 { "vault-kube-kms: " span class=(s.state) { (s.state) } }
                @if let Some(problem) = &s.problem { p { (told(problem)) } }
                p {
                    (s.version) ", up for " (s.uptime_s) " s, at " (s.now) ". Outages: "
                    code { (s.outage_policy) } " after " (s.outage_grace_s) " s. "
                    "As JSON: " code { "/statusz?format=json" }
                }
                (sandbox(s))
                (keys(s))
                (session(s))
                (endpoints(s))
                (errors(s))
            }
        }
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
            "Last read " (ago(s.key_read_s_ago)) "; what writes was last proven "
            (ago(s.proven_s_ago)) ". "
            @if let Some(next) = s.takeover {
                "Version " (next.version) " takes over in " (next.in_s) " s."
            }
        }
        table {
            tr { th { "version" } th { "role" } th { "key_id" } th { "created" } th { "writes from" } }
            @for v in &s.versions {
                tr {
                    td { (v.version) } td { (v.role) } td { code { (v.key_id) } }
                    td { (v.created) } td { (v.writes_from) }
                }
            }
        }
        @if s.versions_seen > s.versions.len() {
            p { "The newest " (s.versions.len()) " of " (s.versions_seen) "." }
        }
    }
}

fn session(s: &Statusz) -> Markup {
    html! {
        @if let Some(session) = &s.session {
            h2 { "Session" }
            p {
                (session.state)
                @if let Some(logins) = session.logins { "; logins: " (logins) }
                @if let Some(left) = session.token_left_s { "; the token lasts " (left) " s" }
            }
            @if let Some(problem) = &session.problem { p { (told(problem)) } }
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
                        td { code { (e.address) } } td { (e.breaker) }
                        td { @if e.preferred { "yes" } }
                        td { @if let Some(problem) = &e.problem { (told(problem)) } }
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
                        td { (e.last) } td { (e.what) } td { (told(&e.problem)) }
                        td { (e.times) } td { (e.first) }
                    }
                }
            }
        }
    }
}

fn told(problem: &Problem) -> Markup {
    html! { code { (problem.code) } ": " (problem.cause) ". Remedy: " (problem.remedy) }
}

fn ago(seconds: Option<u64>) -> String {
    seconds.map_or_else(|| "never".to_owned(), |seconds| format!("{seconds} s ago"))
}
