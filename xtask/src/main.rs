//! The tasks of those who work on vault-kube-kms: `cargo xtask`.

mod run;
mod test;
mod tools;

use std::process::ExitCode;

const USAGE: &str = "\
cargo xtask test     every test; fetches what it needs into target/
cargo xtask tools    only fetch what the tests need";

fn main() -> ExitCode {
    let args: Vec<_> = std::env::args().skip(1).collect();
    let words: Vec<_> = args.iter().map(String::as_str).collect();
    let done = match words.as_slice() {
        ["test"] => test::all(),
        ["tools"] => tools::openbao().map(drop),
        _ => Err(USAGE.into()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            run::say(&error.to_string());
            ExitCode::FAILURE
        }
    }
}
