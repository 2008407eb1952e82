//! The environment file of a service: every flag as a variable, with its default, commented out.

use std::fmt::Write as _;

use super::{
    catalogue::Catalogue,
    flags::{Flag, Takes},
};

/// Flags that say nothing to a service: what reads them is another command, or the service itself sets
/// them.
const LEFT_OUT: [&str; 2] = ["listen-address", "output"];

/// The text of the file.
#[must_use]
pub fn file() -> String {
    let mut text = "# Settings of the vault-kube-kms service. Remove the # before what you set; a line as it stands is the\n\
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
