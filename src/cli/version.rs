//! The version text of this program, and the check of its cryptographic module.

use crate::adapters::vault::tls;

/// Whether this build has the feature `fips`.
const IS_FIPS_BUILD: bool = cfg!(feature = "fips");

#[cfg(feature = "fips")]
macro_rules! module {
    () => {
        "FIPS build"
    };
}
#[cfg(not(feature = "fips"))]
macro_rules! module {
    () => {
        "no FIPS build"
    };
}

macro_rules! build {
    () => {
        concat!(
            env!("CARGO_PKG_VERSION"),
            " (commit ",
            env!("VAULT_KUBE_KMS_COMMIT"),
            ", ",
            module!(),
            ")"
        )
    };
}

/// The version, the commit, and whether this is a FIPS build.
pub(super) const BUILD: &str = build!();

/// The name of the program, and [`BUILD`].
pub(super) const VERSION: &str = concat!("vault-kube-kms ", build!());

/// Returns whether the cryptographic module is in FIPS mode.
pub(super) fn is_fips() -> bool {
    tls::is_fips()
}

/// Checks that a FIPS build uses a FIPS module. Such a module tested itself when it was loaded, and
/// every TLS connection uses only approved algorithms.
///
/// # Errors
/// When a FIPS build has a module without FIPS mode. No command may then run.
pub(super) fn check_fips_module() -> Result<(), &'static str> {
    check_module(IS_FIPS_BUILD, is_fips())
}

fn check_module(is_fips_build: bool, is_fips_module: bool) -> Result<(), &'static str> {
    if is_fips_build && !is_fips_module {
        return Err(
            "this is a FIPS build, and its cryptographic module does not report FIPS mode; \
                    build it for a platform that the module's certificate lists",
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rejects_a_fips_build_without_a_fips_module() {
        assert!(check_module(true, false).is_err());
        for (build, module) in [(true, true), (false, false), (false, true)] {
            assert_eq!(check_module(build, module), Ok(()));
        }
    }

    #[test]
    fn the_version_names_the_kind_of_build() {
        assert_eq!(check_fips_module(), Ok(()));
        assert_eq!(tls::is_fips(), IS_FIPS_BUILD);
        assert_eq!(VERSION.contains("no FIPS build"), !IS_FIPS_BUILD);
    }
}
