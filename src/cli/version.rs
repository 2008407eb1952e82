//! What this program calls itself, and which cryptographic module it was built with.

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

/// Name, version, commit, and whether it is a FIPS build.
pub(super) const VERSION: &str = concat!(
    "vault-kube-kms ",
    env!("CARGO_PKG_VERSION"),
    " (commit ",
    env!("VAULT_KUBE_KMS_COMMIT"),
    ", ",
    module!(),
    ")"
);

/// Returns whether the cryptographic module is in FIPS mode.
pub(super) fn is_fips() -> bool {
    tls::is_fips()
}

/// Checks that a FIPS build has a FIPS module: the module tested itself when it was loaded, and
/// every TLS connection will use what it is approved for.
///
/// # Errors
/// Why nothing may be started.
pub(super) fn module_is_as_built() -> Result<(), &'static str> {
    judge(IS_FIPS_BUILD, is_fips())
}

fn judge(is_fips_build: bool, is_fips_module: bool) -> Result<(), &'static str> {
    if is_fips_build && !is_fips_module {
        return Err(
            "this is a FIPS build, and its cryptographic module does not report FIPS mode; \
                    build it anew for a platform of the module's certificate",
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fips_build_without_a_fips_module_is_refused() {
        assert!(judge(true, false).is_err());
        assert_eq!(judge(true, true).and(judge(false, false)).and(judge(false, true)), Ok(()));
    }

    #[test]
    fn this_build_is_what_it_says() {
        assert_eq!(module_is_as_built(), Ok(()));
        assert_eq!(tls::is_fips(), IS_FIPS_BUILD);
        assert_eq!(VERSION.contains("no FIPS build"), !IS_FIPS_BUILD);
    }
}
