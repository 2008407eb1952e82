//! Reads the flags of an API server from the manifest of its static Pod, such as
//! `/etc/kubernetes/manifests/kube-apiserver.yaml` of kubeadm.

use std::path::{Path, PathBuf};

use serde::Deserialize;
use tokio::task::spawn_blocking;
use vault_kube_kms::adapters::system::bounded_file::{Kinds, read_in_time};

use crate::domain::problem::{Problem, another_form};

/// The largest manifest, in bytes.
const SIZE_MAX: u64 = 1_048_576;

/// What a manifest says about etcd. Paths are those on the node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EtcdFlags {
    /// `--etcd-servers`.
    pub servers: Vec<String>,
    /// `--etcd-cafile`.
    pub authority: Option<PathBuf>,
    /// `--etcd-certfile`.
    pub certificate: Option<PathBuf>,
    /// `--etcd-keyfile`.
    pub key: Option<PathBuf>,
    /// `--etcd-prefix`.
    pub prefix: Option<String>,
    /// `--etcd-servers-overrides`: resources that another etcd has.
    pub overrides: Option<String>,
}

/// Reads the manifest at `path`.
///
/// # Errors
/// `manifest-unreadable` when it cannot be read, or has no API server with `--etcd-servers`.
pub async fn read(path: &Path) -> Result<EtcdFlags, Problem> {
    let file = path.to_owned();
    let text = spawn_blocking(move || read_in_time(&file, SIZE_MAX, Kinds::PlainOrPipe)).await;
    let text = text.unwrap_or_else(|error| Err(error.to_string()));
    text.and_then(|text| etcd_flags(text.expose())).map_err(|why| {
        Problem::new(
            "manifest-unreadable",
            format!("the manifest {} {why}", path.display()),
            "give the manifest of a static Pod of kube-apiserver, or the flags --etcd-servers and \
             --etcd-cafile, --etcd-certfile, --etcd-keyfile themselves",
        )
    })
}

#[derive(Deserialize)]
struct Pod {
    spec: Spec,
}

#[derive(Deserialize)]
struct Spec {
    #[serde(default)]
    containers: Vec<Container>,
    #[serde(default)]
    volumes: Vec<Volume>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Container {
    #[serde(default)]
    command: Vec<String>,
    #[serde(default)]
    args: Vec<String>,
    #[serde(default)]
    volume_mounts: Vec<Mount>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Mount {
    name: String,
    #[serde(rename = "mountPath")]
    path: PathBuf,
    sub_path: Option<PathBuf>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Volume {
    name: String,
    host_path: Option<HostPath>,
}

#[derive(Deserialize)]
struct HostPath {
    path: PathBuf,
}

/// Returns the flags in the text of a manifest.
fn etcd_flags(text: &[u8]) -> Result<EtcdFlags, String> {
    let text = std::str::from_utf8(text).map_err(|_not_text| "is not UTF-8 text".to_owned())?;
    let pod: Pod = serde_saphyr::from_str(text).map_err(|error| {
        let place = error.location().map(|at| (at.line(), at.column()));
        format!("is not a Pod: {}", another_form(place))
    })?;
    let found = pod.spec.containers.iter().find_map(|container| {
        let servers = flag(container, "etcd-servers")?;
        let path =
            |name| flag(container, name).map(|path| on_node(path, container, &pod.spec.volumes));
        Some(EtcdFlags {
            servers: servers.split(',').map(|server| server.trim().to_owned()).collect(),
            authority: path("etcd-cafile"),
            certificate: path("etcd-certfile"),
            key: path("etcd-keyfile"),
            prefix: flag(container, "etcd-prefix").map(str::to_owned),
            overrides: flag(container, "etcd-servers-overrides").map(str::to_owned),
        })
    });
    found.ok_or_else(|| "has no container with the flag --etcd-servers".to_owned())
}

/// Returns the value of a flag: `--name=value`, or `--name` and then `value`. The last one counts.
fn flag<'a>(container: &'a Container, name: &str) -> Option<&'a str> {
    let mut words = container.command.iter().chain(&container.args).map(String::as_str);
    let mut value = None;
    while let Some(word) = words.next() {
        let Some(rest) = word.strip_prefix("--").or_else(|| word.strip_prefix('-')) else {
            continue;
        };
        match rest.strip_prefix(name) {
            Some("") => value = words.next(),
            Some(rest) => value = rest.strip_prefix('=').or(value),
            None => (),
        }
    }
    value
}

/// Returns where a file of the container is on the node: below the longest mount of a `hostPath`
/// volume that contains it. Returns the same path if there is none.
fn on_node(path: &str, container: &Container, volumes: &[Volume]) -> PathBuf {
    let path = Path::new(path);
    let mounts = container.volume_mounts.iter().filter_map(|mount| {
        let inside = path.strip_prefix(&mount.path).ok()?;
        let volume = volumes.iter().find(|volume| volume.name == mount.name)?;
        let mut host = volume.host_path.as_ref()?.path.clone();
        host.extend(mount.sub_path.iter());
        // An empty rest is the mounted file itself.
        if inside.as_os_str().is_empty() {
            return Some((mount.path.components().count(), host));
        }
        Some((mount.path.components().count(), host.join(inside)))
    });
    mounts.max_by_key(|(length, _)| *length).map_or_else(|| path.to_owned(), |(_, host)| host)
}

#[cfg(test)]
mod tests {
    use super::*;

    const KUBEADM: &str = r"
apiVersion: v1
kind: Pod
metadata: {name: kube-apiserver, namespace: kube-system}
spec:
  containers:
    - name: kube-apiserver
      image: registry.k8s.io/kube-apiserver:v1.36.3
      command:
        - kube-apiserver
        - --advertise-address=10.0.0.1
        - --etcd-cafile=/etc/kubernetes/pki/etcd/ca.crt
        - --etcd-certfile=/etc/kubernetes/pki/apiserver-etcd-client.crt
        - --etcd-keyfile=/etc/kubernetes/pki/apiserver-etcd-client.key
        - --etcd-servers=https://127.0.0.1:2379,https://10.0.0.2:2379
      volumeMounts:
        - {mountPath: /etc/kubernetes/pki, name: k8s-certs, readOnly: true}
  volumes:
    - hostPath: {path: /etc/kubernetes/pki, type: DirectoryOrCreate}
      name: k8s-certs
";

    #[test]
    fn reads_the_manifest_of_kubeadm() {
        let flags = etcd_flags(KUBEADM.as_bytes()).unwrap();
        assert_eq!(flags.servers, ["https://127.0.0.1:2379", "https://10.0.0.2:2379"]);
        assert_eq!(flags.authority, Some("/etc/kubernetes/pki/etcd/ca.crt".into()));
        assert_eq!(flags.prefix, None);
    }

    #[test]
    fn finds_files_where_the_node_has_them() {
        let moved = KUBEADM
            .replace(
                "hostPath: {path: /etc/kubernetes/pki,",
                "hostPath: {path: /var/lib/rancher/tls,",
            )
            .replace(
                "volumeMounts:\n",
                "volumeMounts:\n        - {mountPath: /etc/kubernetes/pki/etcd, name: etcd}\n",
            )
            .replace(
                "  volumes:\n",
                "  volumes:\n    - {name: etcd, hostPath: {path: /opt/etcd-tls}}\n",
            );
        let flags = etcd_flags(moved.as_bytes()).unwrap();
        assert_eq!(flags.authority, Some("/opt/etcd-tls/ca.crt".into()));
        assert_eq!(flags.key, Some("/var/lib/rancher/tls/apiserver-etcd-client.key".into()));
    }

    #[test]
    fn reads_a_value_that_is_a_word_of_its_own() {
        let apart = KUBEADM
            .replace("--etcd-cafile=/etc", "--etcd-cafile\n        - /etc")
            .replace("command:", "args: [--etcd-prefix, kubernetes.io]\n      command:");
        let flags = etcd_flags(apart.as_bytes()).unwrap();
        assert_eq!(flags.authority, Some("/etc/kubernetes/pki/etcd/ca.crt".into()));
        assert_eq!(flags.prefix.as_deref(), Some("kubernetes.io"));
    }

    #[test]
    fn refuses_what_is_not_the_manifest_of_an_api_server() {
        for (text, expected) in [
            ("", "is not a Pod"),
            (
                "spec: {containers: [{command: [etcd]}]}",
                "no container with the flag --etcd-servers",
            ),
            ("[1, 2", "is not a Pod"),
            ("spec: 7", "is not a Pod"),
            // A file of another kind, which an error must not repeat.
            ("canary-a-secret-id", "is not a Pod: it has another form"),
            ("spec: [canary", "is not a Pod: it has another form at line 1"),
            ("spec: {containers: canary}", "is not a Pod: it has another form at line 1"),
        ] {
            let why = etcd_flags(text.as_bytes()).unwrap_err();
            assert!(why.contains(expected) && !why.contains('\n'), "{text}: {why}");
            assert!(!why.contains("canary"), "{why}");
        }
    }
}
