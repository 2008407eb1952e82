//! What an operator is told when the agent gives no identity. A text never holds a credential, and
//! never a text of the agent.

use std::{io, path::Path, time::Duration};

use rustix::process::geteuid;
use tonic::{Code as Grpc, Status};

use crate::domain::error::{Code, KmsError};

const NOT_A_WORKLOAD_API: &str =
    "give the socket of the agent's Workload API, and not of its admin API or of another program";

/// Why the agent gives no identity.
#[derive(Debug)]
pub(super) enum Problem {
    /// No process accepts a connection.
    Unreachable(io::Error),
    /// The agent does not answer within this time.
    Silent(Duration),
    /// The agent refuses the request, or the connection was lost.
    Refused(Status),
    /// The agent ended the stream of certificates.
    Ended,
    /// The agent sends no SVID that can be used.
    Unusable(String),
    /// None of so many SVIDs has the wanted ID.
    OtherIds(usize, String),
}

impl Problem {
    /// Returns the error of the domain for the agent at `socket`.
    pub(super) fn into_error(self, socket: &Path) -> KmsError {
        let (cause, remedy) = self.told();
        let cause = format!("the SPIFFE agent at {} {cause}", socket.display());
        KmsError::new(Code::CredentialUnreadable, cause, remedy)
    }

    fn told(self) -> (String, String) {
        match self {
            Self::Unreachable(error) => unreachable(&error),
            Self::Silent(most) => (
                format!("does not answer within {} s", most.as_secs_f64()),
                "see the agent's log and the load of this node".to_owned(),
            ),
            Self::Refused(status) => refused(&status),
            Self::Ended => (
                "ended the stream of certificates".to_owned(),
                "see the agent's log; this program connects again by itself".to_owned(),
            ),
            Self::Unusable(what) => {
                (format!("sends {what}"), "see the agent's log; update the agent".to_owned())
            }
            Self::OtherIds(count, id) => (
                format!("gives this process {count} identities, and none of them is {id}"),
                "correct --spiffe-id, or create a registration entry with this ID for this process"
                    .to_owned(),
            ),
        }
    }
}

fn unreachable(error: &io::Error) -> (String, String) {
    let (cause, remedy) = match error.kind() {
        io::ErrorKind::NotFound => (
            "has no socket there".to_owned(),
            "start the agent, correct --spiffe-socket, or mount the directory of the socket",
        ),
        io::ErrorKind::ConnectionRefused => {
            ("does not run: its socket refuses connections".to_owned(), "start the agent")
        }
        io::ErrorKind::PermissionDenied => (
            "has a socket to which this process may not connect".to_owned(),
            "allow the user of this process to write to the socket and to enter its directory",
        ),
        io::ErrorKind::Other => ("does not speak HTTP/2".to_owned(), NOT_A_WORKLOAD_API),
        _ => (format!("cannot be reached: {error}"), "see the agent's log; check --spiffe-socket"),
    };
    (cause, remedy.to_owned())
}

fn refused(status: &Status) -> (String, String) {
    let code = status.code();
    match code {
        Grpc::PermissionDenied => (
            "has no identity for this process".to_owned(),
            format!(
                "create a registration entry whose selectors fit this process, such as unix:uid:{}; \
                 its identity is used as soon as the agent knows it",
                geteuid().as_raw()
            ),
        ),
        Grpc::InvalidArgument => (
            "does not accept the request as valid".to_owned(),
            "correct --spiffe-audience and --spiffe-id".to_owned(),
        ),
        Grpc::Unimplemented | Grpc::NotFound => {
            ("does not offer the SPIFFE Workload API".to_owned(), NOT_A_WORKLOAD_API.to_owned())
        }
        Grpc::Unknown => (
            "closed the connection".to_owned(),
            "see the agent's log; this program connects again by itself".to_owned(),
        ),
        _ => (
            format!("cannot answer for now (gRPC code {code:?})"),
            "see the agent's log; check that the agent reaches its SPIRE server".to_owned(),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_the_agent_a_cause_and_a_remedy_without_the_text_of_the_agent() {
        let socket = Path::new("/run/a.sock");
        for problem in [
            Problem::Unreachable(io::ErrorKind::NotFound.into()),
            Problem::Unreachable(io::ErrorKind::ConnectionRefused.into()),
            Problem::Unreachable(io::ErrorKind::PermissionDenied.into()),
            Problem::Unreachable(io::Error::other("canary")),
            Problem::Refused(Status::permission_denied("canary")),
            Problem::Refused(Status::invalid_argument("canary")),
            Problem::Refused(Status::unimplemented("canary")),
            Problem::Refused(Status::unknown("canary")),
            Problem::Refused(Status::unavailable("canary")),
            Problem::Silent(Duration::from_secs(10)),
            Problem::Ended,
            Problem::Unusable("no SVID".to_owned()),
            Problem::OtherIds(2, "spiffe://a/b".to_owned()),
        ] {
            let error = problem.into_error(socket);
            assert_eq!(error.code(), Code::CredentialUnreadable);
            let text = error.to_string();
            assert!(text.contains("/run/a.sock") && !text.contains("canary"), "{text}");
            assert!(!error.remedy().is_empty() && !text.contains('\n'), "{text}");
        }
    }
}
