//! Runs each fuzz target with hostile bytes from libFuzzer.

use std::{fs, process::Command};

use crate::{
    run::{Failure, root, run, say, target},
    tools,
};

const TARGETS: &[&str] = &["answers", "authority", "cache", "config", "envelope", "files", "names"];

/// Runs each target for `seconds`, with its dictionary, its corpus, and the findings of earlier
/// runs.
pub(crate) fn all(seconds: u32) -> Result<(), Failure> {
    let cargo_fuzz = tools::cargo("cargo-fuzz", "0.13.2")?;
    for name in TARGETS {
        say(&format!("fuzzing {name} for {seconds} s"));
        let finds = target().join("fuzz-finds");
        let corpus = finds.join(name);
        fs::create_dir_all(&corpus)?;
        let mut fuzz = Command::new(&cargo_fuzz);
        // This code has no unsafe block, so a sanitizer finds nothing that a panic does not show.
        fuzz.current_dir(root())
            .args(["fuzz", "run", "--fuzz-dir=fuzz", "--sanitizer=none", name])
            .arg(&corpus)
            .arg(root().join("fuzz/corpus").join(name))
            .args(["--", "-max_len=2048", "-print_final_stats=1", "-verbosity=0"])
            .arg(format!("-dict={}", root().join("fuzz/dictionaries").join(name).display()))
            .arg(format!("-max_total_time={seconds}"))
            .arg(format!("-artifact_prefix={}/", finds.display()))
            // The coverage flags are unstable, and the toolchain is stable. This variable allows
            // them.
            .env("RUSTC_BOOTSTRAP", "1")
            .env("CARGO", env!("CARGO"))
            .env("CARGO_TARGET_DIR", target().join("fuzz"));
        run(&mut fuzz)?;
    }
    Ok(())
}
