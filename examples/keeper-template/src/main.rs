//! `{{project-name}}`: see `{{project-name}} --help`.

vault_kube_kms::program!({{crate_name}}::settings::DEVICE);
