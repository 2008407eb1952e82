//! Builds the SPIRE server and agent from the Go module proxy, for tests of SPIFFE identities.

use std::path::PathBuf;

use crate::{control_plane::Part, run::Failure};

/// Returns the folder of `spire-server` and `spire-agent`.
pub(crate) fn built() -> Result<PathBuf, Failure> {
    let spire = Part {
        module: "spire-1.13.3".to_owned(),
        ldflags: "-s -w -extldflags=-static".to_owned(),
        programs: &[
            ("github.com/spiffe/spire/cmd/spire-server", "spire-server"),
            ("github.com/spiffe/spire/cmd/spire-agent", "spire-agent"),
        ],
        takes: "5 to 15 minutes, and 2 GB of Go's build cache",
        // The server keeps its data in SQLite.
        has_c: true,
    };
    spire.built()
}
