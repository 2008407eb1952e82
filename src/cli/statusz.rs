//! Collects the content of `/statusz`.

use std::{sync::Arc, time::Duration};

use crate::{
    adapters::{
        http::statusz::{
            EndpointStatus, Expiry, LastError, Problem, Sandbox, SessionStatus, Statusz, Takeover,
            Version,
        },
        rfc3339,
        system::sandbox::Report,
        telemetry::{last_errors::Seen, recorder::Recorder},
    },
    config::settings::Settings,
    domain::{
        error::KmsError,
        health::{OutagePolicy, Standing},
        key::KekVersion,
        rotation::VersionView,
        time::{Monotonic, UnixTime},
        view::VERSIONS_MAX,
        watch::KeyWatch,
    },
    ports::{
        keeper::{EndpointView, Keeper, SessionView},
        telemetry::Expiring,
    },
};

/// Holds everything that `/statusz` reads.
pub(super) struct StatusSource {
    watch: Arc<KeyWatch>,
    version: &'static str,
    keeper: Arc<dyn Keeper>,
    recorder: Arc<Recorder>,
    started: Monotonic,
    process: String,
    outage_policy: OutagePolicy,
    outage_grace: Duration,
    sandbox: Sandbox,
}

impl StatusSource {
    /// Returns the source for a process that starts now.
    pub(super) fn new(
        watch: Arc<KeyWatch>,
        version: &'static str,
        keeper: Arc<dyn Keeper>,
        recorder: Arc<Recorder>,
        settings: &Settings,
        sandbox: Option<Report>,
    ) -> Self {
        Self {
            started: watch.ports().clock.now(),
            process: random(),
            watch,
            version,
            keeper,
            recorder,
            outage_policy: settings.outage_policy,
            outage_grace: settings.outage_grace,
            sandbox: sandbox_of(sandbox),
        }
    }

    /// Returns the current state of the process.
    pub(super) fn now(&self) -> Statusz {
        let clock = &self.watch.ports().clock;
        let (key, keeper) = (self.watch.view(), self.keeper.view());
        let (state, problem) = match &key.standing {
            Standing::Healthy => ("healthy", None),
            Standing::Ailing(error) => ("ailing", Some(problem(error))),
            Standing::Failing(error) => ("failing", Some(problem(error))),
        };
        let writes = key.writer.map(|writer| writer.version);
        let newest = key.versions.iter().rev().take(VERSIONS_MAX);
        Statusz {
            version: self.version.to_owned(),
            fips: super::version::is_fips(),
            now: rfc3339::seconds(clock.wall()),
            process: self.process.clone(),
            uptime_s: clock.now().since(self.started).as_secs(),
            state,
            problem,
            outage_policy: match self.outage_policy {
                OutagePolicy::StopWrites => "stop-writes",
                OutagePolicy::KeepWriting => "keep-writing",
            },
            outage_grace_s: self.outage_grace.as_secs(),
            sandbox: self.sandbox.clone(),
            versions: newest.map(|view| version(view, writes)).collect(),
            versions_seen: key.versions.len(),
            writing_s: key.writing_for.map(|time| time.as_secs()),
            takeover: key
                .takeover
                .map(|(next, wait)| Takeover { version: next.get(), in_s: wait.as_secs() }),
            key_read_s_ago: key.metadata_age.map(|age| age.as_secs()),
            proven_s_ago: key.proof_age.map(|age| age.as_secs()),
            expiries: self
                .recorder
                .expiries()
                .into_iter()
                .map(|of| expiry(of, clock.wall()))
                .collect(),
            session: keeper.session.as_ref().map(session),
            endpoints: keeper.endpoints.into_iter().map(endpoint).collect(),
            last_errors: self
                .recorder
                .last_errors()
                .latest_first()
                .iter()
                .map(last_error)
                .collect(),
        }
    }
}

/// Returns 16 random bytes in hex. Empty if the system has none.
fn random() -> String {
    let mut bytes = [0; 16];
    let filled = aws_lc_rs::rand::fill(&mut bytes);
    filled.map_or_else(|_none| String::new(), |()| format!("{:032x}", u128::from_be_bytes(bytes)))
}

fn sandbox_of(report: Option<Report>) -> Sandbox {
    let on = report.is_some();
    let Report { in_force, mut missing, newer } = report.unwrap_or_default();
    missing.extend(newer);
    Sandbox { on, in_force, missing }
}

fn version(view: &VersionView, writes: Option<KekVersion>) -> Version {
    Version {
        version: view.version.get(),
        key_id: view.key_id.to_string(),
        role: match () {
            () if !view.unwraps => "archived",
            () if Some(view.version) == writes => "writes",
            () if Some(view.version) > writes => "waits",
            () => "reads",
        },
        created: view.created.map_or_else(not_known, rfc3339::seconds),
        writes_from: view.writes_from.map_or_else(not_known, rfc3339::seconds),
    }
}

fn expiry((what, at): (Expiring, UnixTime), now: UnixTime) -> Expiry {
    Expiry {
        what: what.label,
        name: what.name,
        at: rfc3339::seconds(at),
        left_s: at.since(now).as_secs(),
        is_soon: at.since(now) < what.soon,
    }
}

fn session(view: &SessionView) -> SessionStatus {
    SessionStatus {
        login: view.login.clone(),
        state: match (view.logins, &view.closed) {
            (Some(_), _) => "open",
            (None, Some(_)) => "closed",
            (None, None) => "starting",
        },
        logins: view.logins,
        token_left_s: view.token_left.map(|left| left.as_secs()),
        problem: view.closed.as_ref().map(problem),
    }
}

fn endpoint(view: EndpointView) -> EndpointStatus {
    EndpointStatus {
        breaker: view.breaker,
        preferred: view.preferred,
        problem: view.last_error.as_ref().map(problem),
        address: view.address,
    }
}

fn last_error(seen: &Seen) -> LastError {
    LastError {
        what: seen.what,
        problem: problem(&seen.error),
        first: rfc3339::seconds(seen.first),
        last: rfc3339::seconds(seen.last),
        times: seen.times,
    }
}

fn problem(error: &KmsError) -> Problem {
    Problem {
        code: error.code().as_str(),
        cause: error.cause().to_owned(),
        remedy: error.remedy().to_owned(),
    }
}

fn not_known() -> String {
    "not known".to_owned()
}
