//! Builds the programs of a control plane from the Go module proxy: kube-apiserver, kubectl, etcd
//! and its tools. Each has a module of its own in `xtask/parts`, which pins versions and checksums.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use crate::{
    cache,
    run::{Failure, can_run, root, run, say},
};

/// The default release of kube-apiserver.
pub(crate) const KUBERNETES: &str = "1.36.3";
/// The release of etcd that is tested.
pub(crate) const ETCD: &str = "3.6.16";

/// A module of `xtask/parts`, and the programs that are built from it.
pub(crate) struct Part {
    pub(crate) module: String,
    pub(crate) ldflags: String,
    /// The package of each program, and the name of the program's file.
    pub(crate) programs: &'static [(&'static str, &'static str)],
    /// How long a first build takes on two cores.
    pub(crate) takes: &'static str,
    /// Whether a program contains C, so that its build needs a C compiler.
    pub(crate) has_c: bool,
}

/// Folders of programs.
pub(crate) struct ControlPlane {
    pub(crate) kubernetes: PathBuf,
    pub(crate) etcd: PathBuf,
}

/// Builds the programs that do not exist yet.
pub(crate) fn build(kubernetes: &str) -> Result<ControlPlane, Failure> {
    let etcd = Part {
        module: format!("etcd-{ETCD}"),
        ldflags: "-s -w".to_owned(),
        programs: &[
            ("go.etcd.io/etcd/server/v3", "etcd"),
            ("go.etcd.io/etcd/etcdctl/v3", "etcdctl"),
            ("go.etcd.io/etcd/etcdutl/v3", "etcdutl"),
        ],
        takes: "half a minute",
        has_c: false,
    };
    let kubernetes = Part::of_kubernetes(
        kubernetes,
        "kubernetes",
        &[
            ("k8s.io/kubernetes/cmd/kube-apiserver", "kube-apiserver"),
            ("k8s.io/kubernetes/cmd/kubectl", "kubectl"),
        ],
        "3 to 6 minutes, 2 GiB of memory and 2 GB of Go's build cache",
    );
    Ok(ControlPlane { etcd: etcd.built()?, kubernetes: kubernetes.built()? })
}

/// Builds the kubelet and kubeadm for a node, and returns their folder.
pub(crate) fn node() -> Result<PathBuf, Failure> {
    Part::of_kubernetes(
        KUBERNETES,
        "node",
        &[
            ("k8s.io/kubernetes/cmd/kubelet", "kubelet"),
            ("k8s.io/kubernetes/cmd/kubeadm", "kubeadm"),
        ],
        "2 to 4 minutes",
    )
    .built()
}

impl Part {
    /// Returns the programs of the Kubernetes release `release`, from the module of `name`.
    fn of_kubernetes(
        release: &str,
        name: &str,
        programs: &'static [(&'static str, &'static str)],
        takes: &'static str,
    ) -> Self {
        let version = "k8s.io/component-base/version";
        let (major, minor) = release.split_once('.').unwrap_or((release, ""));
        let minor = minor.split('.').next().unwrap_or_default();
        Self {
            module: format!("{name}-{release}"),
            ldflags: format!(
                "-s -w -X {version}.gitVersion=v{release} -X {version}.gitMajor={major} -X {version}.gitMinor={minor}"
            ),
            programs,
            takes,
            has_c: false,
        }
    }

    /// Builds the programs if needed, and returns their folder.
    pub(crate) fn built(&self) -> Result<PathBuf, Failure> {
        let module = root().join("xtask/parts").join(&self.module);
        let read = |file: &str| {
            let path = module.join(file);
            fs::read_to_string(&path).map_err(|error| {
                format!("{}: {error}; make one like those beside it", path.display())
            })
        };
        let recipe = [read("go.mod")?, read("go.sum")?, format!("{:?}", self.programs)].concat();
        cache::tool(&self.module, &recipe, |draft| {
            if !can_run(Command::new("go").arg("version")) {
                return Err(format!("{} is built with Go; install Go 1.26", self.module).into());
            }
            say(&format!("building {} (once; {})", self.module, self.takes));
            let each =
                |(package, name): &(&str, &str)| self.build(&module, package, &draft.join(name));
            self.programs.iter().try_for_each(each)
        })
    }

    fn build(&self, module: &Path, package: &str, program: &Path) -> Result<(), Failure> {
        // Each program is static. These packages use the C library if they can.
        let tags = if self.has_c { "netgo,osusergo" } else { "" };
        let mut go = Command::new("go");
        go.current_dir(module)
            .args([
                "build",
                "-mod=readonly",
                "-trimpath",
                "-buildvcs=false",
                "-tags",
                tags,
                "-ldflags",
                &self.ldflags,
            ])
            .arg("-o")
            .arg(program)
            .arg(package)
            .env("CGO_ENABLED", if self.has_c { "1" } else { "0" });
        run(&mut go)
    }
}
