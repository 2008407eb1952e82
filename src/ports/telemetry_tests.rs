//! Checks that each constant `ALL` lists all values of its enum.

use super::*;
use crate::domain::error::Code;

/// Returns the texts of `as_str` of the type `name` from its source. The compiler checks that
/// `as_str` handles all values.
fn texts<'a>(source: &'a str, name: &str) -> Vec<&'a str> {
    let (_, of_type) = source.split_once(&format!("\nimpl {name} {{\n")).unwrap();
    let (_, function) = of_type.split_once("fn as_str(").unwrap();
    let (body, _) = function.split_once("\n    }\n").unwrap();
    body.split("=> \"").skip(1).map(|arm| arm.split('"').next().unwrap()).collect()
}

#[test]
fn each_list_of_all_values_is_complete() {
    let (here, error) = (include_str!("telemetry.rs"), include_str!("../domain/error.rs"));
    for (listed, source, name) in [
        (Code::ALL.map(Code::as_str).to_vec(), error, "Code"),
        (Method::ALL.map(Method::as_str).to_vec(), here, "Method"),
        (KeeperOperation::ALL.map(KeeperOperation::as_str).to_vec(), here, "KeeperOperation"),
        (EndReason::ALL.map(EndReason::as_str).to_vec(), here, "EndReason"),
    ] {
        assert!(listed.len() >= 2, "{name}");
        assert_eq!(listed, texts(source, name), "{name}");
    }
}
