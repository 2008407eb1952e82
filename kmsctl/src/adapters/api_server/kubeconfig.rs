//! Reads a kubeconfig.

use std::{
    env,
    error::Error,
    path::{Path, PathBuf},
};

use kube::{
    Config,
    config::{KubeConfigOptions, Kubeconfig, KubeconfigError},
};
use vault_kube_kms::adapters::system::bounded_file::{Kinds, read_if_any};

use crate::domain::problem::{Problem, another_form};

/// The largest kubeconfig, in bytes.
const SIZE_MAX: u64 = 1 << 20;

/// Returns what `context`, or the current context, names in the kubeconfig `path`. Without a path it
/// is the file that kubectl uses, or, without a context too, the service account of this Pod.
///
/// # Errors
/// `kubeconfig-unusable` when the file or the context cannot be used.
pub(super) async fn read(path: Option<&Path>, context: Option<String>) -> Result<Config, Problem> {
    // The library reads the files again: it sets no limit of its own.
    for path in path.map_or_else(usual_files, |path| vec![path.to_owned()]) {
        read_if_any(&path, SIZE_MAX, Kinds::Plain).map_err(|why| cannot_use(Some(&path), &why))?;
    }
    let options = KubeConfigOptions { context, ..KubeConfigOptions::default() };
    match path {
        Some(path) => {
            let used = async {
                Config::from_custom_kubeconfig(Kubeconfig::read_from(path)?, &options).await
            };
            used.await.map_err(|error: KubeconfigError| unusable(Some(path), &error))
        }
        None if options.context.is_some() => {
            Config::from_kubeconfig(&options).await.map_err(|error| unusable(path, &error))
        }
        None => Config::infer().await.map_err(|error| unusable(path, &error)),
    }
}

/// Returns the files that kubectl uses, which need not exist.
fn usual_files() -> Vec<PathBuf> {
    let listed: Vec<PathBuf> = env::var_os("KUBECONFIG")
        .map(|list| env::split_paths(&list).filter(|path| !path.as_os_str().is_empty()).collect())
        .unwrap_or_default();
    if listed.is_empty() {
        return env::home_dir().map(|home| home.join(".kube/config")).into_iter().collect();
    }
    listed
}

/// Returns the text of an error, and nothing of the content of a file, which can contain a token:
/// the parser of the library repeats the line.
fn told(error: &(dyn Error + 'static)) -> String {
    let mut cause = Some(error);
    while let Some(one) = cause {
        if let Some(KubeconfigError::Parse(yaml)) = one.downcast_ref() {
            let place = yaml.location().map(|at| (at.line(), at.column()));
            return format!("is not a kubeconfig: {}", another_form(place));
        }
        cause = one.source();
    }
    format!("cannot be used: {error}")
}

/// Returns the error of a kubeconfig, or of the client that it describes. Without a path it is the
/// one that kubectl uses.
pub(super) fn unusable(path: Option<&Path>, error: &(dyn Error + 'static)) -> Problem {
    cannot_use(path, &told(error))
}

fn cannot_use(path: Option<&Path>, why: &str) -> Problem {
    let path = path.map(|path| format!(" {}", path.display())).unwrap_or_default();
    Problem::new(
        "kubeconfig-unusable",
        format!("the kubeconfig{path} {why}"),
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
        let secret = dir.path().join("secret");
        std::fs::write(&secret, "not-for-the-terminal").unwrap();
        let token = dir.path().join("token");
        let text = "apiVersion: v1\nusers:\n- name: a\n  user:\n    token: [not-for-the-terminal\n";
        std::fs::write(&token, text).unwrap();
        for (path, why) in [
            (dir.path(), "is a directory, not a plain file"),
            (&large, "is larger than 1048576 bytes"),
            (&missing, "No such file"),
            (&secret, "is not a kubeconfig: it has another form at line 1, column 1"),
            (&token, "is not a kubeconfig: it has another form at line 5, column 12"),
        ] {
            let problem = read(Some(path), None).await.unwrap_err();
            assert_eq!(problem.code, "kubeconfig-unusable");
            assert!(problem.cause.contains(why), "{problem}");
            assert!(!problem.to_string().contains("terminal"), "{problem}");
        }
    }
}
