//! What a failed request to a member of etcd means: ask again, ask another member, or give up.

use std::error::Error as _;

use tonic::{Code, Status};

use super::tls_error;
use crate::domain::problem::Problem;

/// Why a member did not give the answer.
#[derive(Debug)]
pub(super) enum Failure {
    /// The answer is larger than this program or etcd sends in one message.
    TooLarge,
    /// The token of the user has expired.
    TokenExpired,
    /// This member cannot answer now; another one may.
    OfThisMember {
        /// The cause, which follows the address of the member.
        cause: String,
        /// What to do when no other member answers.
        remedy: String,
    },
    /// No member will give the answer.
    Final(Problem),
}

/// The facts about a connection that an explanation needs.
#[derive(Clone, Copy, Debug)]
pub(super) struct Connection {
    /// Whether its URL has `https://`.
    pub(super) is_https: bool,
    /// Whether there is a client certificate.
    pub(super) has_identity: bool,
    /// Whether there is a user of etcd's authentication.
    pub(super) has_user: bool,
}

impl Failure {
    /// Returns the failure for a request that took longer than `seconds`.
    pub(super) fn timed_out(seconds: u64) -> Self {
        Self::OfThisMember {
            cause: format!("no answer in {seconds} s"),
            remedy: "check the load and the health of etcd (etcdctl endpoint health)".to_owned(),
        }
    }

    /// Returns what `status` means. The text of a status is compared and not passed on.
    pub(super) fn of(status: &Status, connection: Connection) -> Self {
        let says = |text: &str| status.message().contains(text);
        let this_member = |cause: &str, remedy: &str| Self::OfThisMember {
            cause: cause.to_owned(),
            remedy: remedy.to_owned(),
        };
        match status.code() {
            // The library of gRPC refuses a large answer with one of these, and etcd with the other.
            Code::OutOfRange | Code::ResourceExhausted
                if says("message length too large") || says("larger than max") =>
            {
                Self::TooLarge
            }
            Code::OutOfRange if says("has been compacted") => Self::Final(Problem::new(
                "etcd-compacted",
                "etcd removed the revision that is being read, so that the rest cannot be read as \
                 it was at the start (the API server has etcd do this every 5 minutes)",
                "run the command again; if this is repeated, etcd answers too slowly to be read in \
                 10 minutes: read a snapshot of it instead (--etcd-snapshot)",
            )),
            Code::OutOfRange if says("future revision") => this_member(
                "it is behind the other members",
                "check that all URLs in --etcd-servers are members of one cluster",
            ),
            Code::Unauthenticated if connection.has_user => Self::TokenExpired,
            Code::InvalidArgument if says("user name is empty") => Self::Final(not_allowed(
                "etcd has authentication on, and this client has no user",
                "give --etcd-user and --etcd-password-file, or a client certificate whose common \
                 name is a user of etcd",
            )),
            Code::InvalidArgument if says("authentication failed") => Self::Final(not_allowed(
                "etcd does not know the user, or the password is wrong",
                "check --etcd-user and the file of --etcd-password-file",
            )),
            Code::FailedPrecondition if says("authentication is not enabled") => {
                Self::Final(not_allowed(
                    "etcd has no authentication of users, and a user is given",
                    "remove --etcd-user",
                ))
            }
            Code::PermissionDenied => Self::Final(not_allowed(
                "the user may not read these keys",
                "grant its role the right to read them: etcdctl role grant-permission ROLE --prefix \
                 read /registry/",
            )),
            // etcd answers with one of these two, depending on its version.
            Code::FailedPrecondition | Code::Unavailable if says("learner") => this_member(
                "it is a learner, which answers no consistent reads",
                "give the URL of a voting member",
            ),
            Code::Unavailable if says("etcdserver:") => this_member(
                "it has no leader, or is stopping",
                "check that a majority of the members runs (etcdctl endpoint status)",
            ),
            Code::ResourceExhausted => {
                this_member("it has too many requests", "run the command when etcd has less load")
            }
            Code::Unimplemented => Self::Final(Problem::new(
                "etcd-not-supported",
                "the server does not have etcd's API v3",
                "check that the port is etcd's port for clients",
            )),
            Code::DataLoss => Self::Final(Problem::new(
                "etcd-corrupt",
                "etcd reports that its data is corrupt",
                "follow etcd's guide for data corruption, or read another member or a snapshot",
            )),
            Code::Unavailable | Code::Unknown | Code::Internal | Code::Cancelled => {
                let (cause, remedy) = match status.source() {
                    Some(source) => {
                        tls_error::explain(source, connection.is_https, connection.has_identity)
                    }
                    None => (
                        format!("it answers with the gRPC status {:?}", status.code()),
                        "check that the port is etcd's port for clients".to_owned(),
                    ),
                };
                Self::OfThisMember { cause, remedy }
            }
            code => Self::OfThisMember {
                cause: format!("it answers with the gRPC status {code:?}"),
                remedy: "look into the log of etcd".to_owned(),
            },
        }
    }
}

fn not_allowed(cause: &str, remedy: &str) -> Problem {
    Problem::new("etcd-not-allowed", cause, remedy)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: Connection = Connection { is_https: false, has_identity: false, has_user: false };

    fn of(code: Code, message: &str) -> Failure {
        Failure::of(&Status::new(code, message), PLAIN)
    }

    #[test]
    fn a_large_answer_is_told_apart_from_a_busy_member() {
        // The texts are those of tonic, of grpc-go and of etcd.
        for (code, message) in [
            (Code::OutOfRange, "Error, decoded message length too large: found 9 bytes"),
            (Code::ResourceExhausted, "grpc: trying to send message larger than max (9 vs. 8)"),
        ] {
            assert!(matches!(of(code, message), Failure::TooLarge), "{message}");
        }
        let busy = of(Code::ResourceExhausted, "etcdserver: too many requests");
        assert!(matches!(busy, Failure::OfThisMember { .. }));
    }

    #[test]
    fn a_compaction_is_final_and_a_member_that_lags_is_not() {
        let compacted =
            of(Code::OutOfRange, "etcdserver: mvcc: required revision has been compacted");
        let Failure::Final(problem) = compacted else { panic!("{compacted:?}") };
        assert_eq!(problem.code, "etcd-compacted");
        let behind =
            of(Code::OutOfRange, "etcdserver: mvcc: required revision is a future revision");
        assert!(matches!(behind, Failure::OfThisMember { .. }));
    }

    #[test]
    fn another_member_is_asked_instead_of_a_learner() {
        for code in [Code::Unavailable, Code::FailedPrecondition] {
            let learner = of(code, "etcdserver: rpc not supported for learner");
            let Failure::OfThisMember { cause, .. } = learner else { panic!("{learner:?}") };
            assert!(cause.contains("learner"));
        }
    }

    #[test]
    fn passes_on_no_text_of_the_server() {
        for code in 0..17 {
            let failure = of(Code::from_i32(code), "a text of the server");
            assert!(!format!("{failure:?}").contains("a text of the server"), "{failure:?}");
        }
    }
}
