//! Keeps heavy tools outside the clone, so that a second clone can use them at once.
//!
//! Each tool has a folder that is named after its version and the checksum of its recipe. The
//! checksums of the folder are verified before each use.

use std::{
    env,
    fmt::Write as _,
    fs, io,
    path::{Path, PathBuf},
};

use sha2::{Digest as _, Sha256};

use crate::run::{Failure, say};

/// The file that lists each file of a tool's folder with its SHA-256.
const SUMS: &str = "SHA256SUMS";

/// Returns the folder of all tools: `$VAULT_KUBE_KMS_TOOLS`, or `vault-kube-kms/tools` below
/// `$XDG_CACHE_HOME` or `~/.cache`.
pub(crate) fn folder() -> Result<PathBuf, Failure> {
    if let Some(folder) = env::var_os("VAULT_KUBE_KMS_TOOLS") {
        return Ok(folder.into());
    }
    let caches = env::var_os("XDG_CACHE_HOME").filter(|caches| !caches.is_empty());
    let home = || Some(PathBuf::from(env::var_os("HOME")?).join(".cache"));
    let caches = caches.map(PathBuf::from).or_else(home);
    Ok(caches.ok_or("neither XDG_CACHE_HOME nor HOME is set")?.join("vault-kube-kms/tools"))
}

/// Returns the folder of the tool `name`. Calls `make` with the path of an empty folder to fill,
/// unless an intact folder of the same `recipe` exists.
///
/// Another process that needs the same tool waits until it is made.
pub(crate) fn tool(
    name: &str,
    recipe: &str,
    make: impl FnOnce(&Path) -> Result<(), Failure>,
) -> Result<PathBuf, Failure> {
    within(&folder()?, name, recipe, make)
}

fn within(
    tools: &Path,
    name: &str,
    recipe: &str,
    make: impl FnOnce(&Path) -> Result<(), Failure>,
) -> Result<PathBuf, Failure> {
    fs::create_dir_all(tools)?;
    let home = tools.join(format!("{name}-{:.12}", sha256(&mut recipe.as_bytes())?));
    let lock = fs::File::create(tools.join(format!("{name}.lock")))?;
    lock.lock()?;
    if home.exists() {
        match verified(&home) {
            Ok(()) => return Ok(home),
            Err(error) => say(&format!("{} is made again: {error}", home.display())),
        }
    }
    let draft = tools.join(format!("{name}.draft"));
    for old in [&draft, &home] {
        drop(fs::remove_dir_all(old));
    }
    fs::create_dir_all(&draft)?;
    make(&draft)?;
    fs::write(draft.join(SUMS), sums(&draft)?)?;
    fs::rename(&draft, &home)?;
    Ok(home)
}

/// Fails when the files in `home` differ from their listed checksums.
fn verified(home: &Path) -> Result<(), Failure> {
    let written = fs::read_to_string(home.join(SUMS))?;
    if written == sums(home)? { Ok(()) } else { Err("its files were changed".into()) }
}

/// Returns one line for each file: its SHA-256 and its path within `folder`.
fn sums(folder: &Path) -> Result<String, Failure> {
    let (mut files, mut folders) = (Vec::new(), vec![folder.to_owned()]);
    while let Some(next) = folders.pop() {
        for entry in fs::read_dir(next)? {
            let entry = entry?;
            match entry.file_type()? {
                kind if kind.is_dir() => folders.push(entry.path()),
                kind if kind.is_file() && entry.file_name() != SUMS => files.push(entry.path()),
                _ => {}
            }
        }
    }
    files.sort();
    let mut sums = String::new();
    for file in files {
        let sum = sha256(&mut fs::File::open(&file)?)?;
        writeln!(sums, "{sum}  {}", file.strip_prefix(folder)?.display())?;
    }
    Ok(sums)
}

/// Returns the SHA-256 of the bytes of `from`, in hexadecimal.
pub(crate) fn sha256(from: &mut impl io::Read) -> Result<String, Failure> {
    let mut digest = Sha256::new();
    let mut buffer = vec![0; 65_536];
    loop {
        match from.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => digest.update(buffer.get(..count).unwrap_or_default()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => (),
            Err(error) => return Err(error.into()),
        }
    }
    let mut text = String::new();
    for byte in digest.finalize() {
        write!(text, "{byte:02x}")?;
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn makes_a_tool_once_for_each_recipe_and_again_when_its_files_changed() {
        let tools = tempfile::tempdir().unwrap();
        let times = std::cell::Cell::new(0);
        let tool = |recipe: &str| {
            let make = |draft: &Path| {
                times.set(times.get() + 1);
                fs::create_dir(draft.join("bin"))?;
                Ok(fs::write(draft.join("bin/program"), recipe)?)
            };
            within(tools.path(), "tool-1.2.3", recipe, make).unwrap()
        };
        let first = tool("one");
        assert_eq!((tool("one"), times.get()), (first.clone(), 1));
        assert_ne!(tool("two"), first);
        assert_eq!(times.get(), 2);
        fs::write(first.join("bin/program"), "forged").unwrap();
        assert_eq!((tool("one"), times.get()), (first.clone(), 3));
        assert_eq!(fs::read_to_string(first.join("bin/program")).unwrap(), "one");
    }

    #[test]
    fn leaves_no_folder_of_a_tool_that_could_not_be_made() {
        let tools = tempfile::tempdir().unwrap();
        let failed = within(tools.path(), "tool", "", |_draft| Err("no network".into()));
        assert_eq!(failed.unwrap_err().to_string(), "no network");
        let made = within(tools.path(), "tool", "", |_draft| Ok(())).unwrap();
        assert!(made.exists());
    }
}
