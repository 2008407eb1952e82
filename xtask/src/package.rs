//! Makes the archive and the packages of a program: three formats of one folder of files.

use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::Command,
};

use crate::{
    build::source_date,
    cache,
    control_plane::Part,
    debian,
    release::{self, CTL, NAME, PROVIDER, Program},
    run::{Failure, output, root, run, say, target},
    test,
};

/// The shipped architecture, under Debian's name. Another architecture needs its Rust target.
const ARCH: &str = "amd64";

/// The maintainer in the packages. The project has no address; see SECURITY.md.
const MAINTAINER: &str = "The vault-kube-kms maintainers <maintainers@vault-kube-kms.invalid>";

/// The path of the program in the units of the archive, which the original plugin also has, and the
/// path in packages.
const LOCAL: &str = "/usr/local/bin/";
const PACKAGED: &str = "/usr/bin/";

/// The content of the archive and the packages.
#[derive(Clone, Copy)]
pub(crate) struct Contents<'a> {
    pub(crate) of: &'a Program,
    /// The path of the program.
    pub(crate) program: &'a Path,
    /// The bill of materials.
    pub(crate) bom: &'a Path,
    pub(crate) version: &'a str,
    /// The time of all files, in seconds since 1970.
    pub(crate) date: &'a str,
    /// Text that is appended to the environment file of a service, to test an upgrade that changes the file.
    pub(crate) more_settings: &'a str,
}

impl Contents<'_> {
    /// Writes the archive and the packages to `into`, and returns their names. The same contents
    /// give the same bytes.
    pub(crate) fn write(&self, into: &Path) -> Result<Vec<String>, Failure> {
        let stage = tempfile::Builder::new().prefix("package-").tempdir()?;
        self.fill(stage.path())?;
        let mut names = vec![self.archive(stage.path(), into)?];
        for (packager, name) in [
            ("deb", format!("{}_{}-1_{ARCH}.deb", self.of.name, self.version)),
            ("rpm", format!("{}-{}-1.x86_64.rpm", self.of.name, self.version)),
        ] {
            let mut nfpm = Command::new(nfpm()?);
            nfpm.current_dir(stage.path()).args(["package", "--packager", packager, "--config"]);
            nfpm.arg(self.deploy().join("nfpm.yaml")).arg("--target").arg(into.join(&name));
            nfpm.env("VERSION", self.version).env("MAINTAINER", MAINTAINER);
            output(nfpm.env("SOURCE_DATE_EPOCH", self.date))?;
            names.push(name);
        }
        Ok(names)
    }

    /// Returns the folder of the program's files for packages.
    fn deploy(&self) -> PathBuf {
        root().join("deploy").join(self.of.deploy_folder)
    }

    fn fill(&self, stage: &Path) -> Result<(), Failure> {
        let (archive, package) = (stage.join("archive"), stage.join("package"));
        let (completion, pages) = (archive.join("completion"), package.join("manual"));
        for folder in [&completion, &pages] {
            fs::create_dir_all(folder)?;
        }
        fs::copy(self.program, archive.join(self.of.name))?;
        fs::copy(self.bom, archive.join(self.of.bom()))?;
        for name in ["LICENSE", "CHANGELOG.md"] {
            fs::copy(root().join(name), archive.join(name))?;
        }
        for entry in fs::read_dir(self.deploy())? {
            let entry = entry?;
            let (from, name) = (entry.path(), entry.file_name());
            let name = name.to_str().ok_or("the name of a file is not UTF-8")?;
            if name.starts_with("completion.") {
                fs::copy(from, completion.join(name))?;
            } else if from.extension().is_some_and(|end| end == "8") {
                fs::copy(&from, archive.join(name))?;
                fs::copy(from, pages.join(name))?;
                run(Command::new("gzip").args(["-9", "--no-name"]).arg(pages.join(name)))?;
            } else if from.is_file() {
                fs::copy(from, package.join(name))?;
            }
        }
        let copyright = fs::read_to_string(root().join("deploy/package/copyright"))?;
        let bom = PROVIDER.bom();
        fs::write(package.join("copyright"), copyright.replace(&bom, &self.of.bom()))?;
        if self.of.is_service {
            self.fill_units(&archive.join("config/systemd"), &package)?;
        }
        let date =
            output(Command::new("date").args(["-u", "+%FT%TZ", "-d"]).arg(self.since_1970()))?;
        let changelog = format!(
            "- semver: {}-1\n  date: {}\n  packager: {MAINTAINER}\n  deb:\n    urgency: medium\n    \
             distributions: [unstable]\n  changes:\n    - note: See CHANGELOG.md of the release.\n",
            self.version,
            date.trim()
        );
        Ok(fs::write(package.join("changelog.yaml"), changelog)?)
    }

    /// Copies the units to `units`, and those with the path of packages to `package`.
    fn fill_units(&self, units: &Path, package: &Path) -> Result<(), Failure> {
        fs::create_dir_all(units)?;
        for entry in fs::read_dir(root().join("deploy/systemd"))? {
            let entry = entry?;
            fs::copy(entry.path(), units.join(entry.file_name()))?;
        }
        let settings = units.join(format!("{NAME}.env"));
        fs::write(&settings, fs::read_to_string(&settings)? + self.more_settings)?;
        for unit in [format!("{NAME}.service"), format!("{NAME}@.service")] {
            let text = fs::read_to_string(units.join(&unit))?;
            if text.matches(LOCAL).count() != 1 {
                return Err(format!("{unit} does not name {LOCAL} once").into());
            }
            fs::write(package.join(unit), text.replace(LOCAL, PACKAGED))?;
        }
        Ok(())
    }

    fn since_1970(&self) -> String {
        format!("@{}", self.date)
    }

    fn archive(&self, stage: &Path, into: &Path) -> Result<String, Failure> {
        let name = format!("{}_{}_linux_{ARCH}.tar", self.of.name, self.version);
        run(Command::new("tar")
            .args(["--create", "--sort=name", "--owner=0", "--group=0", "--numeric-owner"])
            .args(["--format=gnu", "--mode=u=rwX,go=rX"])
            .arg(format!("--mtime={}", self.since_1970()))
            .arg("--file")
            .arg(into.join(&name))
            .arg("--directory")
            .arg(stage.join("archive"))
            .arg("."))?;
        run(Command::new("gzip").args(["-9", "--no-name", "--force"]).arg(into.join(&name)))?;
        Ok(format!("{name}.gz"))
    }
}

/// Returns the program that makes packages.
fn nfpm() -> Result<PathBuf, Failure> {
    let part = Part {
        module: "nfpm-2.45.2".to_owned(),
        ldflags: "-s -w".to_owned(),
        programs: &[("github.com/goreleaser/nfpm/v2/cmd/nfpm", "nfpm")],
        takes: "half a minute",
        has_c: false,
    };
    Ok(part.built()?.join("nfpm"))
}

/// The Debian packages that the package tests need.
const TOOLS: &[debian::Package] = &[
    ("fish", "3.6.0-3.1+deb12u1"),
    ("lintian", "2.116.3+deb12u1"),
    ("mandoc", "1.14.6-1+b1"),
    ("mmdebstrap", "1.3.5-7"),
    ("rpm", "4.18.0+dfsg-1+deb12u1"),
    ("rpmlint", "2.4.0+ds1-0.2"),
    ("shellcheck", "0.9.0-1"),
    ("systemd-container", "252.39-1~deb12u2"),
    ("zsh", "5.9-4+b15"),
];

/// The root in which packages are installed, and which is then booted.
const ROOT: &[&str] =
    &["--variant=minbase", "--include=systemd,systemd-sysv,dbus,procps", "bookworm"];

/// Makes the files of a release. Makes the same packages again, and the packages of the next
/// version, in `target/packages`. Tests all of them.
pub(crate) fn test(bao: Option<&Path>) -> Result<(), Failure> {
    if debian::packages(TOOLS)?.is_none() {
        return Ok(());
    }
    let programs = release::files()?;
    let (files, packages) = (target().join("release-files"), target().join("packages"));
    drop(fs::remove_dir_all(&packages));
    fs::create_dir_all(&packages)?;
    symlink(&files, packages.join("first"))?;
    let (version, date) = (release::version()?, source_date(&root())?);
    let later = format!("{version}.1");
    for (folder, version, more_settings) in
        [("again", &version, ""), ("next", &later, "# Of the next version.\n")]
    {
        let into = packages.join(folder);
        fs::create_dir(&into)?;
        for (of, program) in [PROVIDER, CTL].iter().zip(&programs) {
            let bom = files.join(of.bom());
            let (bom, date) = (bom.as_path(), date.as_str());
            Contents { of, program, bom, version, date, more_settings }.write(&into)?;
        }
    }
    let rootfs = cache::tool("rootfs-bookworm", &ROOT.join(" "), |draft| {
        say("making the root of a Debian with systemd (once; half a minute)");
        let tar = draft.join("rootfs.tar");
        run(Command::new("mmdebstrap").arg("--quiet").args(ROOT).arg(tar))
    })?;
    say("Go: packages, installed, booted, upgraded and removed");
    let mut go = test::suite("packages", "10m", bao);
    let [provider, ctl] = &programs;
    go.env("PROVIDER", provider).env("KMSCTL", ctl).env("PACKAGES", &packages);
    run(go.env("ROOTFS", rootfs.join("rootfs.tar")).env("DEPLOY", root().join("deploy")))
}
