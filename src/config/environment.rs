//! The environment file of the service. It has each flag as a variable with its default, commented
//! out.

use std::fmt::Write as _;

use super::{
    catalogue::Catalogue,
    flags::{Flag, Takes},
};

/// The flags that the file leaves out. The service sets `listen-address` itself, and only `check`
/// reads `output`.
const LEFT_OUT: [&str; 2] = ["listen-address", "output"];

/// Returns the text of the file.
#[must_use]
pub fn file() -> String {
    let mut text = "# Settings of the vault-kube-kms service. Remove the # before what you set. A line with a # shows the\n\
                    # default. `vault-kube-kms check` reads the same variables.\n"
        .to_owned();
    let catalogue = Catalogue::built_in();
    for (group, flags) in catalogue.groups() {
        let _infallible = write!(text, "\n# -- {group}\n");
        for flag in flags.iter().filter(|flag| !LEFT_OUT.contains(&flag.name)) {
            let several =
                if matches!(flag.takes, Takes::Values(_)) { ", several with commas" } else { "" };
            let Flag { name, help, default, .. } = flag;
            let variable =
                format!("{}_{}", catalogue.prefix(), name.replace('-', "_").to_uppercase());
            let _infallible = write!(text, "# {help}{several}\n#{variable}=\"{default}\"\n");
        }
    }
    text
}
