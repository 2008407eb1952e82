//! Reads a kubeconfig.

use std::{fmt::Display, io, path::Path};

use kube::{
    Config,
    config::{KubeConfigOptions, Kubeconfig},
};

use crate::domain::problem::Problem;

/// The largest kubeconfig, in bytes.
const SIZE_MAX: u64 = 1 << 20;

/// Returns what `context`, or the current context, names in the kubeconfig `path`. Without a path it
/// is the file that kubectl uses.
///
/// # Errors
/// `kubeconfig-unusable` when the file or the context cannot be used.
pub(super) async fn read(path: Option<&Path>, context: Option<String>) -> Result<Config, Problem> {
    let options = KubeConfigOptions { context, ..KubeConfigOptions::default() };
    let Some(path) = path else {
        let config = Config::from_kubeconfig(&options).await;
        return config.map_err(|error| unusable(None, &error));
    };
    check(path).map_err(|error| unusable(Some(path), &error))?;
    let file = Kubeconfig::read_from(path).map_err(|error| unusable(Some(path), &error))?;
    let config = Config::from_custom_kubeconfig(file, &options).await;
    config.map_err(|error| unusable(Some(path), &error))
}

/// Checks that the library may read the file: it sets no limit of its own.
fn check(path: &Path) -> io::Result<()> {
    let found = std::fs::metadata(path)?;
    if !found.is_file() {
        return Err(io::Error::other("it is not a regular file"));
    }
    if found.len() > SIZE_MAX {
        return Err(io::Error::other(format!("it has more than {SIZE_MAX} bytes")));
    }
    Ok(())
}

/// Returns the error of a kubeconfig that cannot be used.
pub(super) fn unusable(path: Option<&Path>, why: &dyn Display) -> Problem {
    let file = path.map_or("the kubeconfig".to_owned(), |path| path.display().to_string());
    Problem::new(
        "kubeconfig-unusable",
        format!("cannot use {file}: {why}"),
        "name a kubeconfig that kubectl works with (--kubeconfig), and one of its contexts",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn names_a_file_that_cannot_be_a_kubeconfig() {
        let dir = tempfile::tempdir().unwrap();
        let large = dir.path().join("large");
        std::fs::File::create(&large).unwrap().set_len(SIZE_MAX + 1).unwrap();
        let missing = dir.path().join("missing");
        for (path, why) in [
            (dir.path(), "not a regular file"),
            (&large, "more than 1048576 bytes"),
            (&missing, "No such file"),
        ] {
            let problem = read(Some(path), None).await.unwrap_err();
            assert_eq!(problem.code, "kubeconfig-unusable");
            assert!(problem.cause.contains(why), "{problem}");
        }
    }
}
