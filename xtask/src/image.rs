//! Builds the container image without a registry and without a container engine.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use crate::{
    build::source_date,
    control_plane::{self, ControlPlane, KUBERNETES},
    debian,
    release::{self, NAME},
    run::{Failure, output, root, run, say, target},
};

const PACKAGES: &[debian::Package] =
    &[("buildah", "1.28.2+ds1-3+deb12u1+b3"), ("ca-certificates", "20230311+deb12u1")];

/// The most bytes of the archive, whose layers are compressed.
const SIZE_MAX: u64 = 20_000_000;

/// An image in an archive.
pub(crate) struct Image {
    /// The image's name with its tag.
    pub(crate) name: String,
    /// The OCI archive that holds the image.
    pub(crate) archive: PathBuf,
    /// The digest of the image's manifest.
    pub(crate) digest: String,
}

/// The base of an image.
#[derive(Clone, Copy)]
pub(crate) enum Base {
    /// Only the libraries.
    Plain,
    /// The libraries and a shell.
    Shell,
}

/// Builds the plain image twice and the image with a shell once, and prints them. Announces and
/// returns `None` when that is not possible.
pub(crate) fn all() -> Result<Option<[Image; 2]>, Failure> {
    let Some(()) = debian::packages(PACKAGES)? else { return Ok(None) };
    release::files()?;
    let context = context()?;
    let place = target().join("image");
    let plain = build(&context, Base::Plain, &place.join("first"))?;
    let again = build(&context, Base::Plain, &place.join("second"))?;
    if plain.digest != again.digest {
        let problem = format!("two builds gave {} and {}", plain.digest, again.digest);
        return Err(problem.into());
    }
    let size = fs::metadata(&plain.archive)?.len();
    if size > SIZE_MAX {
        return Err(format!("{} has {size} bytes; at most {SIZE_MAX}", plain.name).into());
    }
    let shell = build(&context, Base::Shell, &place.join("first"))?;
    for image in [&plain, &shell] {
        let size = fs::metadata(&image.archive)?.len();
        say(&format!("{}  {}  {size} bytes", image.name, image.digest));
    }
    Ok(Some([plain, shell]))
}

/// Makes the folder of an image's content, and returns it.
fn context() -> Result<PathBuf, Failure> {
    let context = target().join("image/context");
    drop(fs::remove_dir_all(&context));
    for folder in ["sbom", "licenses", "rootfs-none"] {
        fs::create_dir_all(context.join(folder))?;
    }
    let (files, sbom) = (target().join("release-files"), format!("{NAME}.cdx.json"));
    fs::copy(files.join(NAME), context.join(NAME))?;
    fs::copy(files.join(&sbom), context.join("sbom").join(&sbom))?;
    fs::copy(root().join("LICENSE"), context.join("licenses/LICENSE"))?;
    let script = root().join("deploy/container/rootfs.sh");
    run(Command::new(&script).arg(context.join("rootfs")))?;
    run(Command::new(&script).arg(context.join("rootfs-shell")).arg("shell"))?;
    Ok(context)
}

/// Builds one image. buildah keeps its storage in `place`.
fn build(context: &Path, base: Base, place: &Path) -> Result<Image, Failure> {
    let (rootfs, suffix) = match base {
        Base::Plain => ("rootfs", ""),
        Base::Shell => ("rootfs-shell", "-shell"),
    };
    let version = release::version()?;
    let name = format!("localhost/{NAME}:{version}{suffix}");
    fs::create_dir_all(place)?;
    let date = source_date(&root())?;
    let revision = output(Command::new("git").current_dir(root()).args(["rev-parse", "HEAD"]))?;
    let mut bud = buildah(place);
    bud.args(["bud", "--quiet", "--isolation", "chroot", "--format", "oci", "--omit-history"])
        .arg(format!("--timestamp={date}"))
        .arg(format!("--tag={name}"))
        .arg("--file")
        .arg(root().join("deploy/container/Containerfile"));
    for (argument, value) in [
        ("ROOTFS", rootfs),
        ("VERSION", version.as_str()),
        ("REVISION", revision.trim()),
        ("CREATED", &date),
    ] {
        bud.arg(format!("--build-arg={argument}={value}"));
    }
    output(bud.arg(context))?;
    let archive = place.join(format!("{NAME}-{version}{suffix}.oci.tar"));
    drop(fs::remove_file(&archive));
    let digest = place.join("digest");
    output(
        buildah(place)
            .args(["push", "--quiet", "--digestfile"])
            .arg(&digest)
            .arg(&name)
            .arg(format!("oci-archive:{}:{name}", archive.display())),
    )?;
    Ok(Image { name, archive, digest: fs::read_to_string(digest)? })
}

/// Returns buildah with its storage in `place`.
fn buildah(place: &Path) -> Command {
    let mut buildah = Command::new("buildah");
    buildah.args(["--storage-driver", "vfs", "--root"]).arg(place.join("storage"));
    buildah.arg("--runroot").arg(place.join("run"));
    buildah
}

/// Builds the other images of a node, each from one static program: etcd, kube-apiserver, and the
/// pause program of a Pod's sandbox. Returns the folder of their archives, with copies of `ours` in
/// it.
pub(crate) fn of_a_node(ours: &[Image], parts: &ControlPlane) -> Result<PathBuf, Failure> {
    let place = target().join("image/node");
    let archives = place.join("archives");
    drop(fs::remove_dir_all(&archives));
    fs::create_dir_all(&archives)?;
    for (number, image) in ours.iter().enumerate() {
        fs::copy(&image.archive, archives.join(format!("{NAME}-{number}.tar")))?;
    }
    let pause = place.join("pause");
    run(Command::new("go")
        .current_dir(root().join("tests"))
        .args(["build", "-trimpath", "-buildvcs=false", "-o"])
        .arg(&pause)
        .arg("./node/pause")
        .env("CGO_ENABLED", "0"))?;
    let (kubernetes, etcd) = (format!("v{KUBERNETES}"), control_plane::ETCD);
    for (name, tag, program) in [
        ("pause", "1", pause),
        ("etcd", etcd, parts.etcd.join("etcd")),
        ("kube-apiserver", &kubernetes, parts.kubernetes.join("kube-apiserver")),
    ] {
        let context = place.join("context");
        drop(fs::remove_dir_all(&context));
        fs::create_dir_all(context.join("usr/local/bin"))?;
        fs::create_dir_all(context.join("tmp"))?;
        fs::copy(program, context.join("usr/local/bin").join(name))?;
        let containerfile = place.join("Containerfile");
        let text = format!("FROM scratch\nCOPY . /\nENV PATH=/usr/local/bin\nCMD [\"{name}\"]\n");
        fs::write(&containerfile, text)?;
        let image = format!("localhost/{name}:{tag}");
        let mut bud = buildah(&place);
        bud.args(["bud", "--quiet", "--isolation", "chroot"]).arg(format!("--tag={image}"));
        output(bud.arg("--file").arg(&containerfile).arg(&context))?;
        let archive = archives.join(format!("{name}.tar"));
        let to = format!("docker-archive:{}:{image}", archive.display());
        output(buildah(&place).args(["push", "--quiet", "--disable-compression", &image, &to]))?;
    }
    drop(fs::remove_dir_all(place.join("storage")));
    Ok(archives)
}
