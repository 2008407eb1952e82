//! Maps errors of the domain to gRPC statuses. No other module does.

use tonic::{Code as Grpc, Status};

use crate::domain::error::{Code, KmsError};

/// Returns the gRPC status of `error`. kube-apiserver treats all failures alike; the code is for
/// metrics and for people.
pub(super) fn of(error: &KmsError) -> Status {
    Status::new(grpc_code(error.code()), error.to_string())
}

pub(super) const fn grpc_code(code: Code) -> Grpc {
    match code {
        Code::CiphertextRejected | Code::InvalidRequest => Grpc::InvalidArgument,
        Code::DeadlineExceeded | Code::KeeperTimeout => Grpc::DeadlineExceeded,
        Code::KeyIdUnknown => Grpc::NotFound,
        Code::Internal | Code::KeeperAnswer => Grpc::Internal,
        Code::LoginRefused => Grpc::Unauthenticated,
        Code::Overloaded => Grpc::ResourceExhausted,
        Code::PermissionDenied => Grpc::PermissionDenied,
        Code::AuditLogFailing
        | Code::Intermediary
        | Code::KeeperFailed
        | Code::KeeperOverloaded
        | Code::KeeperSealed
        | Code::KeeperUnreachable
        | Code::ProofPending
        | Code::Starting
        | Code::VersionNotYet => Grpc::Unavailable,
        Code::AadNotEnforced
        | Code::CredentialUnreadable
        | Code::KeyMissing
        | Code::KeyReplaced
        | Code::KeyRolledBack
        | Code::KeyUnusable
        | Code::OfKeeper(_)
        | Code::VersionRetired => Grpc::FailedPrecondition,
    }
}
