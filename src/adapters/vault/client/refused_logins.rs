//! The logins that clusters refused while our cluster was not known.
//! A refused credential is not sent again for [`REFUSED_FOR`] to the cluster that refused it. It may
//! be sent to another cluster, because the one that refused it may be a foreign one.

use crate::{
    adapters::vault::{
        login::port::{CredentialDigest, REFUSED_FOR},
        refusal::Refusal,
    },
    domain::time::Monotonic,
};

/// The largest number of refused logins that are remembered.
const REFUSED_MAX: usize = 16;

#[derive(Debug)]
struct RefusedLogin {
    cluster: String,
    credential: CredentialDigest,
    refusal: Refusal,
    at: Monotonic,
}

/// The refused logins, the oldest first.
#[derive(Debug, Default)]
pub(super) struct RefusedLogins(Vec<RefusedLogin>);

impl RefusedLogins {
    /// Records that `cluster` refused `credential` at `now`.
    pub(super) fn keep(
        &mut self,
        cluster: String,
        credential: CredentialDigest,
        refusal: Refusal,
        now: Monotonic,
    ) {
        self.0.retain(|known| known.cluster != cluster || known.credential != credential);
        if self.0.len() == REFUSED_MAX {
            self.0.remove(0);
        }
        self.0.push(RefusedLogin { cluster, credential, refusal, at: now });
    }

    /// Forgets all refusals.
    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    /// Returns when `cluster` last refused a login.
    pub(super) fn last_of(&self, cluster: &str) -> Option<Monotonic> {
        self.0.iter().rfind(|known| known.cluster == cluster).map(|known| known.at)
    }

    /// Returns the refusal because of which `cluster` must not get `credential` at `now`. Only a
    /// refusal of the credential itself counts.
    pub(super) fn of(
        &self,
        cluster: &str,
        credential: CredentialDigest,
        now: Monotonic,
    ) -> Option<&Refusal> {
        let counts = |known: &&RefusedLogin| {
            known.cluster == cluster
                && known.credential == credential
                && known.refusal.is_of_the_credential()
                && now.since(known.at) < REFUSED_FOR
        };
        self.0.iter().find(counts).map(|known| &known.refusal)
    }
}
