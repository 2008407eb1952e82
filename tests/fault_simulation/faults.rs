//! The faults: how each begins and ends.

use std::{sync::Arc, time::Duration};

use tokio::time::Instant;

use super::{
    chance::Chance,
    clock::wall_ms,
    credential_file::CredentialFile,
    invariants::{RECOVERY, RECOVERY_BY_LOGIN, RECOVERY_FROM_PAGES, RECOVERY_REFUSED},
    model::{
        NODES,
        cluster::{Cluster, Condition},
        proxy::Page,
    },
};

/// The longest time after a rotation in which a standby does not know it. Usually the time is
/// much shorter.
const LAG_MS: u64 = 20_000;

/// The largest error of a wall clock.
const CLOCK_STEP_MS: i64 = 3_600_000;

/// The time for which a client may remember that batches are refused: until it reads the key.
const SINGLY_AFTER: Duration = Duration::from_secs(20);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    AllMeet(Condition),
    BatchesRefused,
    /// The wall clock of a plugin's node is wrong by up to an hour. Later it is set right.
    ClockSteps(usize),
    /// The server behind a name belongs to another cluster.
    Foreign(usize),
    FileAway,
    ItemsFail,
    MountGone,
    /// A node is sealed, and its name leads to another node some time later.
    NameMoves(usize),
    NodeBehind(usize),
    NodeMeets(usize, Condition),
    NodeSealed(usize),
    /// A node does not learn of an existing new version.
    NodeStale(usize),
    /// A proxy in front of one node, or of all, answers in place of the keeper.
    Proxied(Option<usize>, Page),
    Quota,
    /// Deleted, and restored as it was.
    RoleAway,
    RoleDeleted,
    Rotated,
    SecretIdDestroyed,
    /// The secret ID is replaced in good order: the file has the new one before the old one ends.
    SecretIdReplaced,
    TokensCounted,
    TokensRevoked,
    Unreliable,
    Slow,
}

impl Fault {
    pub fn any(chance: &mut Chance) -> Self {
        let node = chance.below(NODES as u64) as usize;
        let conditions = [Condition::Dead, Condition::Stalled, Condition::Unreachable];
        let condition = conditions[chance.below(3) as usize];
        match chance.below(36) {
            0..5 => Self::NodeMeets(node, condition),
            5 => Self::AllMeet(condition),
            6..8 => Self::NodeSealed(node),
            8 => Self::NodeBehind(node),
            9 => Self::BatchesRefused,
            10 => Self::ItemsFail,
            11 => Self::MountGone,
            12 => Self::Quota,
            13 => Self::RoleDeleted,
            14 => Self::SecretIdDestroyed,
            15 => Self::TokensCounted,
            16..18 => Self::TokensRevoked,
            18 => Self::Rotated,
            19 | 20 => Self::Unreliable,
            21 => Self::FileAway,
            22 => Self::SecretIdReplaced,
            23 | 24 => Self::Rotated,
            25 | 26 => Self::NodeStale(node),
            27 => Self::Foreign(node),
            28 | 29 => Self::NameMoves(node),
            30 => Self::Proxied(Some(node), Page::any(chance)),
            31 | 32 => Self::Proxied(None, Page::any(chance)),
            33 | 34 => Self::ClockSteps(node),
            _ => Self::Slow,
        }
    }

    /// Returns whether both concern the same part.
    pub fn conflicts(self, other: Self) -> bool {
        // The plugin must use the answer of all remaining nodes, so a stale node is never the
        // only one.
        let all =
            |fault| matches!(fault, Self::AllMeet(_) | Self::NodeStale(_) | Self::Proxied(None, _));
        let of_nodes = |fault: Self| fault.subject() < NODES;
        let rotates = |fault| matches!(fault, Self::Rotated | Self::NodeStale(_));
        self.subject() == other.subject()
            || rotates(self) && rotates(other)
            || all(self) && of_nodes(other)
            || all(other) && of_nodes(self)
    }

    fn subject(self) -> usize {
        match self {
            Self::AllMeet(_) | Self::Proxied(None, _) => 0,
            Self::NodeMeets(node, _)
            | Self::Foreign(node)
            | Self::NameMoves(node)
            | Self::Proxied(Some(node), _)
            | Self::NodeSealed(node)
            | Self::NodeStale(node)
            | Self::NodeBehind(node) => node,
            Self::FileAway
            | Self::RoleAway
            | Self::RoleDeleted
            | Self::SecretIdDestroyed
            | Self::SecretIdReplaced
            | Self::TokensCounted => NODES,
            Self::TokensRevoked => NODES + 1,
            Self::Rotated => NODES + 2,
            Self::MountGone | Self::Quota => NODES + 3,
            Self::BatchesRefused | Self::ItemsFail => NODES + 4,
            Self::Unreliable | Self::Slow => NODES + 5,
            Self::ClockSteps(_) => NODES + 6,
        }
    }

    /// Returns the duration, which is usually short.
    pub fn length(self, chance: &mut Chance) -> Duration {
        let long = chance.once_in(8);
        Duration::from_millis(match self {
            Self::TokensRevoked => 1,
            Self::Rotated => 2_000 + LAG_MS,
            Self::SecretIdReplaced => 5_000,
            Self::NameMoves(_) => 5_000 + chance.below(30_000),
            // Until it is reported, and for some time after that.
            Self::Foreign(_) => 5_000 + chance.below(60_000),
            // Long enough to count as a rollback.
            Self::NodeStale(_) => 90_000 + chance.below(80_000),
            _ if long => 30_000 + chance.below(80_000),
            _ => 500 + chance.below(15_000),
        })
    }

    /// Returns whether calls may fail during the fault.
    pub fn is_felt(self) -> bool {
        !matches!(self, Self::NodeStale(_) | Self::ClockSteps(_) | Self::Rotated)
    }

    /// Returns the time from its end until everything works.
    pub fn recovery(self) -> Duration {
        match self {
            Self::TokensRevoked => RECOVERY_BY_LOGIN,
            Self::RoleAway => RECOVERY_REFUSED,
            Self::Proxied(..) => RECOVERY_FROM_PAGES,
            _ => RECOVERY,
        }
    }

    /// Returns the minimum time until the next fault of its kind.
    pub fn rest(self) -> Duration {
        match self {
            // Tokens that are refused at once are replaced after longer and longer pauses, as
            // intended.
            Self::TokensRevoked => Duration::from_secs(30),
            Self::Rotated => Duration::from_secs(20),
            // Each plugin tries each new secret ID once, and five refusals in a row lock the role:
            // between two refused ones, one must be granted.
            Self::SecretIdDestroyed => Duration::from_secs(30),
            _ => Duration::ZERO,
        }
    }

    pub fn begin(self, cluster: &Cluster, files: &[Arc<CredentialFile>], chance: &mut Chance) {
        match self {
            Self::AllMeet(condition) => {
                (0..NODES).for_each(|node| cluster.set_condition(node, condition));
            }
            Self::NodeMeets(node, condition) => cluster.set_condition(node, condition),
            Self::Rotated => {
                let wall_secs = wall_ms(cluster.journal.started()) / 1_000;
                let most = if chance.once_in(2) { LAG_MS } else { 100 };
                let lags = [(); NODES].map(|()| Duration::from_millis(20 + chance.below(most)));
                cluster.state().rotate(wall_secs, lags);
            }
            Self::FileAway => files.iter().for_each(|file| file.write(None)),
            Self::SecretIdReplaced => replace_secret_id(cluster, files),
            Self::NameMoves(name) => {
                let mut state = cluster.state();
                let moves_at = Instant::now() + Duration::from_millis(chance.below(5_000));
                (state.nodes[name].sealed, state.nodes[name].moves_at) = (true, Some(moves_at));
            }
            Self::Proxied(..) => self.set_proxy(cluster, true),
            _ => self.begin_at_all(cluster, chance),
        }
    }

    fn set_proxy(self, cluster: &Cluster, is_there: bool) {
        let Self::Proxied(one, page) = self else { return };
        let mut state = cluster.state();
        let nodes = state.nodes.iter_mut().enumerate();
        for (_, node) in nodes.filter(|(index, _)| one.is_none_or(|one| one == *index)) {
            node.proxy = is_there.then_some(page);
        }
    }

    fn begin_at_all(self, cluster: &Cluster, chance: &mut Chance) {
        let mut state = cluster.state();
        match self {
            Self::NodeBehind(node) => state.nodes[node].behind = true,
            Self::NodeSealed(node) => state.nodes[node].sealed = true,
            Self::Foreign(node) => state.nodes[node].foreign = true,
            Self::NodeStale(node) => {
                state.nodes[node].knows = Some(state.known(node));
                let wall_secs = wall_ms(cluster.journal.started()) / 1_000;
                state.rotate(wall_secs, [Duration::ZERO; NODES]);
            }
            Self::ClockSteps(client) => {
                let step = chance.below(2 * CLOCK_STEP_MS as u64) as i64 - CLOCK_STEP_MS;
                state.clock_steps_ms[client] = step;
            }
            Self::BatchesRefused => state.transit.refuses_batches = true,
            Self::ItemsFail => state.transit.items_fail_once_in = Some(1 + chance.below(20)),
            Self::MountGone => state.mount_gone = true,
            Self::Quota => state.quota = Some(chance.once_in(2).then_some(1 + chance.below(2))),
            Self::RoleAway | Self::RoleDeleted => state.auth.exists = false,
            Self::SecretIdDestroyed => state.auth.destroy_secret_ids(),
            Self::TokensCounted => state.auth.num_uses = 10,
            Self::TokensRevoked => state.auth.revoke_all(),
            Self::Slow => state.slow = true,
            Self::Unreliable => state.flaky = true,
            _ => (),
        }
    }

    /// Ends the fault. A fault that an operator must repair ends with a new secret ID in the
    /// plugins' `files`.
    pub fn end(self, cluster: &Cluster, files: &[Arc<CredentialFile>]) {
        let mend = |node| cluster.set_condition(node, Condition::Serving);
        match self {
            Self::AllMeet(_) => (0..NODES).for_each(mend),
            Self::NodeMeets(node, _) => mend(node),
            Self::RoleDeleted | Self::SecretIdDestroyed | Self::TokensCounted => {
                let mut state = cluster.state();
                (state.auth.exists, state.auth.num_uses) = (true, 0);
                drop(state);
                replace_secret_id(cluster, files);
            }
            Self::FileAway => replace_secret_id(cluster, files),
            Self::SecretIdReplaced => {
                let auth = &mut cluster.state().auth;
                let first = auth.shared.clone();
                auth.destroy_secret_ids_before(&first);
            }
            Self::Proxied(..) => self.set_proxy(cluster, false),
            _ => self.end_at_all(cluster),
        }
    }

    fn end_at_all(self, cluster: &Cluster) {
        let mut state = cluster.state();
        match self {
            Self::NodeBehind(node) => state.nodes[node].behind = false,
            Self::NodeSealed(node) => state.nodes[node].sealed = false,
            Self::Foreign(node) => state.nodes[node].foreign = false,
            Self::NameMoves(name) => {
                (state.nodes[name].sealed, state.nodes[name].moves_at) = (false, None);
            }
            Self::NodeStale(node) => state.nodes[node].knows = None,
            Self::ClockSteps(client) => state.clock_steps_ms[client] = 0,
            Self::BatchesRefused => {
                state.transit.refuses_batches = false;
                state.singly_until = Instant::now() + SINGLY_AFTER;
            }
            Self::ItemsFail => state.transit.items_fail_once_in = None,
            Self::MountGone => state.mount_gone = false,
            Self::Quota => state.quota = None,
            Self::RoleAway => state.auth.exists = true,
            Self::Slow => state.slow = false,
            Self::Unreliable => state.flaky = false,
            _ => (),
        }
    }
}

/// An operator writes a new secret ID into all files, or a wrapping token of it into each.
pub fn replace_secret_id(cluster: &Cluster, files: &[Arc<CredentialFile>]) {
    let auth = &mut cluster.state().auth;
    let secret_id = auth.issue_secret_id();
    auth.shared.clone_from(&secret_id);
    files.iter().for_each(|file| file.write(Some(auth.delivered(&secret_id))));
}

/// An operator writes a wrapping token of another secret ID into one file.
pub fn wrap_again(cluster: &Cluster, file: &CredentialFile) {
    let auth = &mut cluster.state().auth;
    let secret_id = auth.issue_secret_id();
    file.write(Some(auth.delivered(&secret_id)));
}
