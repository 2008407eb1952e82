//! Runs one seed: three plugins and a cluster, with times of faults and times without.

use std::{collections::BTreeMap, future::pending, sync::Arc, time::Duration};

use tokio::{
    runtime::{Builder, Handle},
    task::JoinSet,
    time::{Instant, sleep},
};

use super::{
    alarms::Alarms,
    chance::Chance,
    credential_file::CredentialFile,
    fault_log::FaultLog,
    faults::{Fault, replace_secret_id, wrap_again},
    invariants::{CONNECTIONS_QUIET, NO_FALSE_ALARM, NO_PANIC, NOTHING_LEFT, TASKS_LAST},
    journal::{Journal, note_panics, take_panics},
    load::{Load, Tally},
    model::{NODES, cluster::Cluster, measures::Peaks, network::Network},
    plants::Plant,
    plugin::Plugin,
};

/// Plugins that share one role, as on a control plane of three nodes.
const PLUGINS: usize = 3;

/// The duration of the faults, and the time for the recovery. Both come twice.
const TROUBLE: Duration = Duration::from_secs(300);
const PEACE: Duration = Duration::from_secs(60);
const ROUNDS: usize = 2;

/// The interval of the decisions whether a fault begins, and its chance: once in this number of
/// decisions.
const TICK: Duration = Duration::from_millis(100);
const RARITY: u64 = 120;

/// The maximum number of faults at once.
const FAULTS_MAX: usize = 3;

/// Idle connections are closed within this time after the last call.
const QUIET: Duration = Duration::from_secs(200);

/// The tasks of one connection: of the client, of the server and of the pool.
const TASKS_PER_CONNECTION: usize = 3;

/// The tasks of one plugin: session, observer, idle connections, and short-lived ones.
const TASKS_PER_PLUGIN: usize = 8;

/// The time for a plugin to notice a new wrapping token and to log in with it.
const NOTICED: Duration = Duration::from_secs(5);

/// How much rarer calls are in scripts that take hours.
const SLOWNESS: u32 = 10;

/// Other limits than the rules have. Stricter ones show that each rule can be broken.
#[derive(Clone, Copy, Debug, Default)]
pub struct Severity {
    /// The number of refusals that locks the role.
    pub lockout_failures: Option<u32>,
    /// The time after the last fault in which everything must work.
    pub recovery: Option<Duration>,
    /// Some plaintexts are wrong.
    pub lies: bool,
    /// A planted fault of the program.
    pub plant: Option<Plant>,
}

impl Severity {
    /// Returns the rules with a planted fault.
    pub fn plant(plant: Plant) -> Self {
        Self { plant: Some(plant), ..Self::default() }
    }
}

/// The outcome of a seed.
pub struct Report {
    pub verdict: Option<String>,
    pub trace: Vec<String>,
    pub tally: Tally,
    pub peaks: Peaks,
    pub worst_recovery: Duration,
    pub happened: BTreeMap<&'static str, u64>,
}

/// Runs `seed` in virtual time, on this thread.
pub fn run(seed: u64, talks: bool, severity: Severity) -> Report {
    let runtime = Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    runtime.block_on(async { Simulation::new(seed, talks, severity, 1).run().await })
}

/// Runs each of `faults` for its duration, one after the other. `seed` decides everything else.
pub fn run_script(
    seed: u64,
    talks: bool,
    severity: Severity,
    faults: &[(Fault, Duration)],
) -> Report {
    let runtime = Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    let slowness = if severity.plant.is_some() { 1 } else { SLOWNESS };
    runtime
        .block_on(async { Simulation::new(seed, talks, severity, slowness).follow(faults).await })
}

/// Starts the plugins while all of `faults` are present, each for its duration. With `foreign`, the
/// name of the first node always leads to another cluster.
pub fn run_from_start(
    seed: u64,
    talks: bool,
    foreign: bool,
    recovery: Duration,
    faults: &[(Fault, Duration)],
) -> Report {
    let runtime = Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    let severity = Severity { recovery: Some(recovery), ..Severity::default() };
    runtime.block_on(async {
        let simulation = Simulation::new(seed, talks, severity, SLOWNESS);
        simulation.start_in(faults, foreign).await
    })
}

struct Simulation {
    seed: u64,
    chance: Chance,
    severity: Severity,
    journal: Arc<Journal>,
    alarms: Alarms,
    cluster: Arc<Cluster>,
    plugins: Vec<Arc<Plugin>>,
    files: Vec<Arc<CredentialFile>>,
    fault_log: Arc<FaultLog>,
    load: Arc<Load>,
    /// The first secret ID.
    secret_id: String,
    /// The present faults, each with its end.
    faults: Vec<(Instant, Fault)>,
    /// Past faults, each with the earliest time of its next begin.
    resting: Vec<(Instant, Fault)>,
    /// When each plugin got a wrapping token in place of a lost one.
    wrapped_at: BTreeMap<usize, Instant>,
    leaderless: bool,
    told_of_stale: bool,
}

impl Simulation {
    fn new(seed: u64, talks: bool, severity: Severity, slowness: u32) -> Self {
        note_panics();
        let alarms = Alarms::collect();
        let mut chance = Chance::new(seed);
        let journal = Arc::new(Journal::new(talks));
        let cluster = Arc::new(Cluster::new(chance.next(), journal.clone()));
        if let Some(failures) = severity.lockout_failures {
            cluster.state().auth.lockout_failures = failures;
        }
        cluster.state().transit.lies = severity.lies;
        let stolen = severity.plant == Some(Plant::StolenToken);
        cluster.state().auth.wraps = stolen || severity.plant.is_none() && chance.once_in(3);
        let secret_id = cluster.state().auth.issue_secret_id();
        // At once, or when all nodes know a version.
        let delay = Duration::from_secs(if chance.once_in(2) { 0 } else { 30 });
        let plant = severity.plant;
        if plant == Some(Plant::Leak) {
            (0..100).for_each(|_| drop(tokio::spawn(pending::<()>())));
        }
        let start = |client| {
            let network = Network { cluster: cluster.clone(), client, plant };
            let text = cluster.state().auth.delivered(&secret_id);
            if stolen {
                cluster.state().auth.unwrap(&text);
            }
            Arc::new(Plugin::start(network, text, chance.next(), delay))
        };
        let plugins: Vec<_> = (0..PLUGINS).map(start).collect();
        let recovery = severity.recovery.unwrap_or(Fault::Slow.recovery());
        Self {
            seed,
            files: plugins.iter().map(|plugin| plugin.file.clone()).collect(),
            fault_log: Arc::new(FaultLog::new(Instant::now() + recovery)),
            load: Arc::new(Load::new(slowness)),
            secret_id,
            faults: Vec::new(),
            resting: Vec::new(),
            wrapped_at: BTreeMap::new(),
            leaderless: false,
            told_of_stale: false,
            chance,
            severity,
            journal,
            alarms,
            cluster,
            plugins,
        }
    }

    fn begin_load(&mut self) -> JoinSet<()> {
        let mut tasks = JoinSet::new();
        for plugin in &self.plugins {
            let seed = self.chance.next();
            self.load.begin(plugin, &self.fault_log, seed, &mut tasks);
        }
        tasks
    }

    async fn follow(mut self, faults: &[(Fault, Duration)]) -> Report {
        let _tasks = self.begin_load();
        self.pass(PEACE, false).await;
        for (fault, length) in faults {
            self.begin_fault(*fault, *length);
            self.pass(*length + TICK, false).await;
            self.pass(self.recovery(*fault) + PEACE, false).await;
        }
        self.report()
    }

    async fn start_in(mut self, faults: &[(Fault, Duration)], foreign: bool) -> Report {
        {
            let mut state = self.cluster.state();
            (state.balanced, state.nodes[0].foreign) = (false, foreign);
        }
        let mut longest = Duration::ZERO;
        for (fault, length) in faults {
            self.begin_fault(*fault, *length);
            longest = longest.max(*length);
        }
        let _tasks = self.begin_load();
        self.pass(longest + self.recovery(Fault::Slow) + PEACE, false).await;
        self.report()
    }

    async fn run(mut self) -> Report {
        let mut tasks = self.begin_load();
        for _ in 0..ROUNDS {
            self.pass(TROUBLE, true).await;
            self.end_all();
            self.pass(PEACE, false).await;
        }
        tasks.shutdown().await;
        self.pass(QUIET, false).await;
        self.check_what_is_left();
        self.report()
    }

    /// Lets time pass, with or without faults. Ends early when a rule is broken.
    async fn pass(&mut self, time: Duration, trouble: bool) {
        let end = Instant::now() + time;
        while Instant::now() < end && self.journal.verdict().is_none() {
            self.cluster.elect();
            self.note_leader();
            self.end_due(Instant::now());
            self.tend_plants();
            self.watch_tasks();
            self.check_alarms();
            self.tend_wrapping_tokens();
            if trouble && self.chance.once_in(RARITY) {
                self.begin_one();
            }
            sleep(TICK).await;
        }
    }

    /// In the model no one steals a wrapping token.
    fn check_alarms(&self) {
        for alarm in self.alarms.take() {
            self.journal.violated(&NO_FALSE_ALARM, format_args!("{alarm}"));
        }
    }

    /// A task that panics or ends must not count as a fault of the network.
    fn watch_tasks(&self) {
        for panic in take_panics() {
            self.journal.violated(&NO_PANIC, format_args!("{panic}"));
        }
        for plugin in self.plugins.iter().filter(|plugin| plugin.has_lost_a_task()) {
            self.journal.violated(&TASKS_LAST, format_args!("plugin {}", plugin.index));
        }
    }

    /// An operator writes a new wrapping token for a plugin that has lost the answer to its unwrap.
    fn tend_wrapping_tokens(&mut self) {
        for plugin in &self.plugins {
            let Some(why) = plugin.needs_a_wrapping_token() else { continue };
            let index = plugin.index;
            if self.wrapped_at.get(&index).is_some_and(|at| at.elapsed() < NOTICED) {
                continue;
            }
            self.wrapped_at.insert(index, Instant::now());
            self.journal.say(format_args!("plugin {index} gets a new wrapping token: {why}"));
            self.cluster.state().meet("wrapping lost");
            self.fault_log.fault_begins();
            wrap_again(&self.cluster, &plugin.file);
            self.fault_log.fault_ends(self.recovery(Fault::Slow));
        }
    }

    fn tend_plants(&mut self) {
        let tick = self.journal.started().elapsed().as_millis() / 100;
        match self.severity.plant {
            Some(Plant::ChangingSecretId) if tick.is_multiple_of(30) => {
                replace_secret_id(&self.cluster, &self.files);
            }
            Some(Plant::ForgottenRefusal)
                if self.plugins.len() == PLUGINS && self.cluster.state().measures.has_refused() =>
            {
                let network = self.plugins[0].network.clone();
                let same = Plugin::start(network, self.secret_id.clone(), 0, Duration::ZERO);
                self.plugins.push(Arc::new(same));
            }
            _ => (),
        }
    }

    /// Without a leader, no call must succeed.
    fn note_leader(&mut self) {
        let leaderless = self.cluster.state().leader.is_none();
        match (self.leaderless, leaderless) {
            (false, true) => self.fault_log.fault_begins(),
            (true, false) => self.fault_log.fault_ends(self.recovery(Fault::Slow)),
            _ => (),
        }
        self.leaderless = leaderless;
    }

    fn begin_one(&mut self) {
        let fault = Fault::any(&mut self.chance);
        let length = fault.length(&mut self.chance);
        let now = Instant::now();
        self.resting.retain(|(until, _)| *until > now);
        let conflicts = |(_, other): &(Instant, Fault)| fault.conflicts(*other);
        let pointless = match fault {
            Fault::NodeStale(_) => !self.cluster.state().can_be_stale(),
            Fault::Foreign(_) | Fault::NameMoves(_) => !self.cluster.state().has_plain_addresses(),
            _ => false,
        };
        if pointless
            || self.faults.len() >= FAULTS_MAX
            || self.faults.iter().any(conflicts)
            || self.resting.iter().any(conflicts)
        {
            return;
        }
        self.begin_fault(fault, length);
    }

    fn begin_fault(&mut self, fault: Fault, length: Duration) {
        self.journal.say(format_args!("{fault:?} for {length:?}"));
        if fault.is_felt() {
            self.fault_log.fault_begins();
        }
        fault.begin(&self.cluster, &self.files, &mut self.chance);
        self.cluster.elect();
        self.note_leader();
        self.faults.push((Instant::now() + length, fault));
    }

    fn end_all(&mut self) {
        self.end_due(Instant::now() + Duration::from_hours(1));
        self.journal.say(format_args!("peace"));
    }

    fn end_due(&mut self, now: Instant) {
        let due: Vec<_> = self.faults.extract_if(.., |(ends, _)| *ends <= now).collect();
        for (_, fault) in due {
            self.journal.say(format_args!("{fault:?} ends"));
            self.told_of_stale |= self.plugins.iter().any(|p| p.tells_of_a_stale_node());
            fault.end(&self.cluster, &self.files);
            if fault.is_felt() {
                self.fault_log.fault_ends(self.recovery(fault));
            }
            self.resting.push((Instant::now() + fault.rest(), fault));
        }
    }

    fn recovery(&self, fault: Fault) -> Duration {
        self.severity.recovery.unwrap_or(fault.recovery())
    }

    /// Only the observers run.
    fn check_what_is_left(&self) {
        if self.journal.verdict().is_some() {
            return;
        }
        let left = |what: std::fmt::Arguments<'_>| self.journal.violated(&NOTHING_LEFT, what);
        let mut tasks_max = 0;
        for plugin in &self.plugins {
            let open = self.cluster.state().measures.connections(plugin.index);
            tasks_max += open * TASKS_PER_CONNECTION + TASKS_PER_PLUGIN;
            if open > CONNECTIONS_QUIET {
                left(format_args!("plugin {} has {open} connections", plugin.index));
            }
            let queued = plugin.ledger.queued();
            if queued > 0 {
                left(format_args!("{queued} unwraps of plugin {} wait", plugin.index));
            }
        }
        let tasks = Handle::current().metrics().num_alive_tasks();
        if tasks > tasks_max {
            left(format_args!("{tasks} tasks, at most {tasks_max} were expected"));
        }
    }

    fn report(self) -> Report {
        self.watch_tasks();
        self.check_alarms();
        let mut happened = BTreeMap::new();
        for (what, times) in self.plugins.iter().flat_map(|plugin| plugin.ledger.happened()) {
            *happened.entry(what).or_default() += times;
        }
        happened.extend(self.cluster.state().met.clone());
        if self.told_of_stale {
            happened.insert("told of as stale", 1);
        }
        let (tally, peaks) = (self.load.tally(), self.cluster.state().measures.peaks);
        let worst_recovery = self.fault_log.worst();
        self.journal.say(format_args!("seed {}: {tally:?} {peaks:?}", self.seed));
        Report {
            verdict: self.journal.verdict(),
            trace: self.journal.trace(),
            tally,
            peaks,
            worst_recovery,
            happened,
        }
    }
}

const _: () = assert!(PLUGINS == NODES, "each plugin asks another node first");
