//! Maps errors of AWS KMS to codes.

use aws_sdk_kms::error::{ProvideErrorMetadata, SdkError};
use vault_kube_kms::domain::error::{Code, KmsError};

/// The code, the cause and the remedy of an error.
type Meaning = (Code, &'static str, &'static str);

/// Maps `error`, with which a call for the key `arn` failed. Takes no text from the answer.
pub(crate) fn meaning<E: ProvideErrorMetadata>(error: &SdkError<E>, arn: &str) -> KmsError {
    let (code, cause, remedy) = match error {
        SdkError::ServiceError(refused) => {
            refusal(refused.err().code().unwrap_or_default(), refused.raw().status().as_u16())
        }
        SdkError::TimeoutError(_) => TIMEOUT,
        SdkError::DispatchFailure(way) if way.is_timeout() => TIMEOUT,
        // The SDK reports absent credentials in this way. A failure of the connection has a kind.
        SdkError::DispatchFailure(way) if way.is_other() && way.as_other().is_none() => {
            NO_CREDENTIALS
        }
        SdkError::DispatchFailure(_) => UNREACHABLE,
        _ => INVALID,
    };
    KmsError::new(code, format!("{cause} ({arn})"), remedy)
}

const TIMEOUT: Meaning =
    (Code::KeeperTimeout, "AWS KMS did not answer in time", "check the network");
const UNREACHABLE: Meaning =
    (Code::KeeperUnreachable, "AWS KMS cannot be reached", "check the network and --aws-endpoint");
const NO_CREDENTIALS: Meaning =
    (Code::CredentialUnreadable, "the AWS SDK found no credentials", "give this node a role");
const INVALID: Meaning =
    (Code::KeeperAnswer, "the answer of AWS KMS is not valid", "check --aws-endpoint");

/// Maps the error `name` of AWS, or the HTTP status when the name is not in the table.
fn refusal(name: &str, status: u16) -> Meaning {
    match name {
        "NotFoundException" => {
            (Code::VersionRetired, "AWS KMS has no such key", "correct the ARN, if it is wrong")
        }
        "DisabledException" | "KMSInvalidStateException" => {
            (Code::VersionRetired, "the key is not enabled", "cancel its deletion, and enable it")
        }
        "InvalidCiphertextException" | "IncorrectKeyException" => {
            (Code::CiphertextRejected, "AWS KMS rejects the ciphertext", "restore the object")
        }
        "AccessDeniedException" => {
            (Code::PermissionDenied, "AWS denies the call", "allow DescribeKey, Encrypt, Decrypt")
        }
        "ExpiredTokenException"
        | "IncompleteSignature"
        | "InvalidClientTokenId"
        | "InvalidSignatureException"
        | "UnrecognizedClientException" => {
            (Code::LoginRefused, "AWS refuses the credentials", "renew them, or set the clock")
        }
        "LimitExceededException" | "ThrottlingException" => {
            (Code::KeeperOverloaded, "AWS KMS limits requests", "wait, or have the quota raised")
        }
        _ if status >= 500 => (Code::KeeperFailed, "AWS KMS failed", "see AWS Health"),
        _ => INVALID,
    }
}
