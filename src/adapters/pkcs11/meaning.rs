//! Translates answers of the library into errors of the domain.

use cryptoki::error::{Error, RvError};

use crate::domain::error::{Code, KmsError};

/// Says why work in a session failed.
#[derive(Debug)]
pub(super) enum Fault {
    /// The library answered with this error.
    Library(Error),
    /// The keeper itself found the cause.
    Known(KmsError),
}

impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        Self::Library(error)
    }
}

impl From<KmsError> for Fault {
    fn from(error: KmsError) -> Self {
        Self::Known(error)
    }
}

impl From<Fault> for KmsError {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::Library(error) => of(&error),
            Fault::Known(error) => error,
        }
    }
}

/// Returns the meaning of `error`. The meaning does not depend on the call.
pub(super) fn of(error: &Error) -> KmsError {
    let Error::Pkcs11(code, function) = error else {
        return KmsError::new(
            Code::KeeperAnswer,
            "the PKCS#11 module answered something that cannot be understood",
            "check that --pkcs11-module is a PKCS#11 library of version 2.40 or later",
        );
    };
    let (kind, remedy) = match code {
        RvError::TokenNotPresent
        | RvError::TokenNotRecognized
        | RvError::DeviceRemoved
        | RvError::SlotIdInvalid => {
            (Code::KeeperUnreachable, "connect the token; the keeper looks for it again by itself")
        }
        RvError::UserPinNotInitialized => {
            (Code::KeeperSealed, "have the security officer of the token set its user PIN")
        }
        RvError::SessionCount | RvError::HostMemory | RvError::DeviceMemory => (
            Code::KeeperOverloaded,
            "lower --pkcs11-sessions, or end other programs that use the token",
        ),
        RvError::KeyFunctionNotPermitted | RvError::ActionProhibited => (
            Code::PermissionDenied,
            "make the key with CKA_ENCRYPT and CKA_DECRYPT; `pkcs11 rotate` makes such a version",
        ),
        RvError::MechanismInvalid
        | RvError::MechanismParamInvalid
        | RvError::KeyTypeInconsistent
        | RvError::KeySizeRange
        | RvError::FunctionNotSupported
        | RvError::TemplateInconsistent
        | RvError::AttributeValueInvalid
        | RvError::AttributeTypeInvalid => (
            Code::KeyUnusable,
            "use a token that has AES-256 keys and CKM_AES_GCM with a nonce of the caller",
        ),
        RvError::TokenWriteProtected => {
            (Code::PermissionDenied, "allow the user of the token to make keys")
        }
        _ if refuses_pin(code) => (Code::LoginRefused, "write the right PIN to --pkcs11-pin-file"),
        _ => (
            Code::KeeperFailed,
            "check the token and the log of its module, and that --pkcs11-needs names what the \
             module uses",
        ),
    };
    let cause = format!("the PKCS#11 module answered {} to C_{function:?}", name(code));
    KmsError::new(kind, cause, remedy)
}

/// Returns whether `code` refuses the PIN, so that another try would bring the token closer to its lock.
///
/// A code of the vendor counts as a refusal, because its meaning is not known.
pub(super) const fn refuses_pin(code: &RvError) -> bool {
    matches!(
        code,
        RvError::PinIncorrect
            | RvError::PinInvalid
            | RvError::PinLenRange
            | RvError::PinExpired
            | RvError::PinLocked
            | RvError::VendorDefined(_)
            | RvError::UnknownErrorCode(_)
    )
}

/// Returns whether `error` concerns the session, the handle of the key or the token. Such an error says
/// nothing about the ciphertext.
pub(super) const fn is_of_session(error: &Error) -> bool {
    matches!(
        error,
        Error::Pkcs11(
            RvError::SessionHandleInvalid
                | RvError::SessionClosed
                | RvError::ObjectHandleInvalid
                | RvError::KeyHandleInvalid
                | RvError::KeyFunctionNotPermitted
                | RvError::MechanismInvalid
                | RvError::UserNotLoggedIn
                | RvError::DeviceRemoved
                | RvError::TokenNotPresent
                | RvError::TokenNotRecognized
                | RvError::SlotIdInvalid
                | RvError::CryptokiNotInitialized
                | RvError::OperationActive
                | RvError::HostMemory
                | RvError::DeviceMemory,
            _
        )
    )
}

/// Returns whether `error` concerns the session, the token or the device, and so says that the PIN was
/// not checked.
pub(super) const fn is_of_device(error: &Error) -> bool {
    is_of_session(error)
        || matches!(
            error,
            Error::Pkcs11(
                RvError::DeviceError | RvError::UserPinNotInitialized | RvError::SessionCount,
                _
            )
        )
}

/// Returns whether `error` names the ciphertext as the cause.
pub(super) const fn is_of_ciphertext(error: &Error) -> bool {
    matches!(
        error,
        Error::Pkcs11(RvError::EncryptedDataInvalid | RvError::EncryptedDataLenRange, _)
    )
}

/// Returns the name of `code` in the standard, such as `CKR_GENERAL_ERROR`.
fn name(code: &RvError) -> String {
    match code {
        RvError::VendorDefined(number) | RvError::UnknownErrorCode(number) => {
            format!("the vendor's code {number:#x}")
        }
        _ => {
            let mut name = "CKR".to_owned();
            for letter in format!("{code:?}").chars() {
                if letter.is_ascii_uppercase() {
                    name.push('_');
                }
                name.push(letter.to_ascii_uppercase());
            }
            name
        }
    }
}

#[cfg(test)]
mod tests {
    use cryptoki::context::Function;

    use super::*;

    #[test]
    fn names_a_code_as_the_standard_does() {
        assert_eq!(name(&RvError::GeneralError), "CKR_GENERAL_ERROR");
        assert_eq!(name(&RvError::CryptokiNotInitialized), "CKR_CRYPTOKI_NOT_INITIALIZED");
        assert_eq!(name(&RvError::VendorDefined(0x8000_0001)), "the vendor's code 0x80000001");
    }

    #[test]
    fn tells_an_outage_from_a_refusal() {
        for (code, means) in [
            (RvError::DeviceRemoved, Code::KeeperUnreachable),
            (RvError::GeneralError, Code::KeeperFailed),
            (RvError::SessionHandleInvalid, Code::KeeperFailed),
            (RvError::SessionCount, Code::KeeperOverloaded),
            (RvError::PinIncorrect, Code::LoginRefused),
            (RvError::PinLocked, Code::LoginRefused),
            (RvError::UserPinNotInitialized, Code::KeeperSealed),
            (RvError::KeyFunctionNotPermitted, Code::PermissionDenied),
            (RvError::MechanismInvalid, Code::KeyUnusable),
        ] {
            let error = of(&Error::Pkcs11(code, Function::Encrypt));
            assert_eq!(error.code(), means, "{error}");
            assert!(error.cause().ends_with("C_Encrypt"), "{error}");
        }
        assert_eq!(of(&Error::InvalidValue).code(), Code::KeeperAnswer);
    }
}
