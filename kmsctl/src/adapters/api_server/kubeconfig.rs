//! Reads a kubeconfig.

use std::{error::Error, path::Path};

use http::uri::InvalidUri;
use kube::{
    Config,
    config::{KubeConfigOptions, Kubeconfig, KubeconfigError},
};
use vault_kube_kms::adapters::system::bounded_file::{Kinds, read_in_time};

use crate::domain::problem::{Problem, another_form};

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
    // The library reads the file again: it sets no limit of its own.
    read_in_time(path, SIZE_MAX, Kinds::Plain).map_err(|why| cannot_use(Some(path), &why))?;
    let file = Kubeconfig::read_from(path).map_err(|error| unusable(Some(path), &error))?;
    let config = Config::from_custom_kubeconfig(file, &options).await;
    config.map_err(|error| unusable(Some(path), &error))
}

/// Says why a kubeconfig, or the client that it describes, cannot be used. Repeats only errors that
/// cannot contain a token or a password: others show the file, the URL of a proxy, or the output of a
/// login program.
fn told(error: &(dyn Error + 'static)) -> String {
    let mut cause = Some(error);
    while let Some(one) = cause {
        match one.downcast_ref() {
            Some(KubeconfigError::Parse(yaml)) => {
                let place = yaml.location().map(|at| (at.line(), at.column()));
                return format!("is not a kubeconfig: {}", another_form(place));
            }
            Some(KubeconfigError::ParseCertificates(_)) => {
                return "has certificates that are not valid PEM".to_owned();
            }
            Some(known) => return format!("cannot be used: {known}"),
            None if one.is::<InvalidUri>() => return format!("cannot be used: {one}"),
            None => cause = one.source(),
        }
    }
    "describes no client that can be made: see its proxy-url, certificates and login".to_owned()
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

    /// The library prints the URL of a proxy that it does not support.
    #[tokio::test]
    async fn prints_no_password_of_a_proxy() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config");
        let text = "apiVersion: v1\ncurrent-context: a\n\
            contexts: [{name: a, context: {cluster: a, user: a}}]\nusers: [{name: a, user: {}}]\n\
            clusters: [{name: a, cluster: {server: 'https://a', proxy-url: 'http://u:canary@b'}}]\n";
        std::fs::write(&path, text).unwrap();
        let config = read(Some(&path), None).await.unwrap();
        let Err(error) = kube::Client::try_from(config) else { panic!("a client is made") };
        assert!(error.to_string().contains("canary"), "{error}");
        let problem = unusable(None, &error);
        assert!(!problem.to_string().contains("canary"), "{problem}");
    }
}
