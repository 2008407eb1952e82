//! The rules that must hold during any fault of the keeper, each with its reason.

use std::time::Duration;

use vault_kube_kms::{
    adapters::vault::vocabulary::{CLUSTER_FOREIGN, WRAPPING_TOKEN_USED},
    domain::error::Code,
};

use super::model::NODES;

/// One rule.
pub struct Violation {
    pub name: &'static str,
    pub because: &'static str,
}

const fn rule(name: &'static str, because: &'static str) -> Violation {
    Violation { name, because }
}

pub const NO_WRONG_PLAINTEXT: Violation =
    rule("no wrong plaintext", "the API server would write with a seed that nobody can unwrap");
pub const NO_PANIC: Violation = rule("no panic", "a panic is an outage of our own");
pub const TASKS_LAST: Violation =
    rule("a background task does not end", "the process ends with it, or goes on without it");
pub const STATUS_IS_FRESH: Violation =
    rule("Status does not outlast the keeper", "the API server would write while nobody can read");
pub const REFUSAL_STANDS: Violation =
    rule("a refusal stands until a success", "an outage after it would let a dead key write");
pub const STATUS_IS_KEPT: Violation = rule(
    "Encrypt does what Status says",
    "the API server refuses a key id that Status did not tell",
);
pub const KEY_ID_ADVANCES: Violation =
    rule("the key id does not go back", "each change makes the API server write all anew");
pub const ONLY_THE_KEEPERS_WORD: Violation =
    rule("only the keeper refuses", "a proxy's page says nothing of a credential, a key or data");
pub const FOREIGN_LEFT_ALONE: Violation =
    rule("a foreign cluster is left alone", "it would be shown tokens and secret IDs of ours");
pub const NAME_FOLLOWED: Violation =
    rule("a name that moved is followed", "the old server may answer for hours that it is sealed");
pub const ENDS_BY_ITS_DEADLINE: Violation =
    rule("a call ends by its deadline", "the API server's own error says nothing of the cause");
pub const TELLS_ITS_CAUSE: Violation =
    rule("a failure tells its cause", "it is all that an operator has to go by");
pub const KEEPS_SECRETS: Violation =
    rule("a failure tells no secret", "errors are logged by the API server too");
pub const BLAMES_THE_KEEPER: Violation =
    rule("an outage is no tampering", "an operator would restore a backup for nothing");
pub const FEW_REQUESTS: Violation =
    rule("a call costs few requests", "retries must not multiply the load on a keeper in trouble");
pub const NO_LOGIN_STORM: Violation =
    rule("logins are rare", "each one writes a lease and may use up a secret ID");
pub const REFUSED_PAIR_RESTS: Violation =
    rule("a refused pair is left alone", "five refusals lock the role for every node");
pub const NO_FALSE_ALARM: Violation =
    rule("an alarm of theft means a theft", "an operator would revoke what nobody has stolen");
pub const NO_LOCKOUT: Violation =
    rule("the role is never locked", "a lock keeps out the good credential too, for 15 minutes");
pub const FEW_IN_FLIGHT: Violation =
    rule("few requests are out at once", "2,000 seeds must not become 2,000 requests");
pub const FEW_CONNECTIONS: Violation =
    rule("few connections are open", "descriptors run out, at the keeper as well");
pub const RECOVERS: Violation =
    rule("calls work soon after the last fault", "nobody is to restart anything");
pub const NOTHING_LEFT: Violation =
    rule("nothing is left behind", "what leaks in minutes ends the process in weeks");

/// All rules.
pub const ALL: [&Violation; 23] = [
    &NO_WRONG_PLAINTEXT,
    &NO_PANIC,
    &TASKS_LAST,
    &STATUS_IS_FRESH,
    &REFUSAL_STANDS,
    &STATUS_IS_KEPT,
    &KEY_ID_ADVANCES,
    &ONLY_THE_KEEPERS_WORD,
    &FOREIGN_LEFT_ALONE,
    &NAME_FOLLOWED,
    &ENDS_BY_ITS_DEADLINE,
    &TELLS_ITS_CAUSE,
    &KEEPS_SECRETS,
    &BLAMES_THE_KEEPER,
    &FEW_REQUESTS,
    &NO_LOGIN_STORM,
    &REFUSED_PAIR_RESTS,
    &NO_FALSE_ALARM,
    &NO_LOCKOUT,
    &FEW_IN_FLIGHT,
    &FEW_CONNECTIONS,
    &RECOVERS,
    &NOTHING_LEFT,
];

/// The time for which Status may be ok after the last read of the key: the grace time and the
/// time of an answer.
pub const STATUS_LASTS: Duration = Duration::from_secs(30 + 6);

/// The time for which a client may ask the former server of a name.
pub const NAME_FOLLOWED_WITHIN: Duration = Duration::from_secs(5);

/// The time from the end of a proxy that answered in place of the keeper until everything works.
pub const RECOVERY_FROM_PAGES: Duration = Duration::from_secs(30);

/// The time for which a refusal is reported after the keeper's last refusal, while calls work.
pub const REFUSAL_LASTS: Duration = Duration::from_secs(70);

/// kube-apiserver's 3 s without the reserve of the socket.
pub const BUDGET: Duration = Duration::from_millis(2_790);

/// The time after its deadline in which a call must end.
pub const LATENESS: Duration = Duration::from_millis(5);

/// Requests for one lone call with any answers (`REQUESTS_MAX`), and the same number again with
/// the token of a new login.
pub const REQUESTS_MAX: u32 = 6 + 6;

/// Granted logins of one node within a minute: a rejected token is replaced after at least 10 s,
/// a token with limited uses lives for 20 s, and an answer may be lost.
pub const LOGINS_PER_MINUTE: usize = 8;

/// Login requests within a minute with any answers: one each 5 s after the first few, with at
/// most 6 tries each.
pub const LOGIN_REQUESTS_PER_MINUTE: usize = (12 + 2) * 6;

/// The time for which a refused pair of role ID and secret ID is not tried again.
pub const REFUSED_FOR: Duration = Duration::from_hours(1);

/// Open requests of one node: two batches of unwraps, eight wraps, the key reads of the observer
/// and of a request at each endpoint, two of the session, and a health check.
pub const IN_FLIGHT_MAX: usize = 2 + 8 + 2 * NODES + 2 + 1;

/// The same for a server without batches: each of the two then sends eight at once.
pub const IN_FLIGHT_SINGLY_MAX: usize = 2 * 8 + 8 + 2 * NODES + 2 + 1;

/// Open connections of one node, including idle ones and those of calls that have ended early.
pub const CONNECTIONS_MAX: usize = 64;

/// Connections of one node without calls: two to each endpoint, for a key read and a health check
/// at once, and four that were opened too late.
pub const CONNECTIONS_QUIET: usize = 2 * NODES + 4;

/// The time from the end of the last fault until every call works.
pub const RECOVERY: Duration = Duration::from_secs(10);

/// The same after tokens were revoked: the login after a token that was refused while it was new
/// follows after 10 s, and a failed one after 5 s.
pub const RECOVERY_BY_LOGIN: Duration = Duration::from_secs(20);

/// The longest wait before a login after one that failed and was not refused.
pub const WAIT_OF_A_LOGIN: Duration = Duration::from_secs(66);

/// The same after refused logins that succeed again without a new credential: a refused pair is
/// tried again after an hour, and at most a tenth more.
pub const RECOVERY_REFUSED: Duration = Duration::from_secs(60 * 60 * 11 / 10 + 10);

/// Returns whether an outage may end a call with `code`. All other codes name the stored object,
/// the key or a defect as the cause.
pub fn is_of_an_outage(code: Code) -> bool {
    code.is_outage()
        || matches!(
            code,
            CLUSTER_FOREIGN
                | WRAPPING_TOKEN_USED
                // The file was away at the start.
                | Code::CredentialUnreadable
                | Code::KeyIdUnknown
                | Code::KeyMissing
                | Code::LoginRefused
                | Code::Overloaded
                | Code::PermissionDenied
                | Code::ProofPending
                | Code::Starting
                | Code::VersionNotYet
        )
}
