//! Reads the configuration file. An error names a place in the file and never repeats its content,
//! because `--config` may name a file of secrets by mistake.

use std::path::Path;

use config::{Config, ConfigError, File, FileFormat, Map, Value};

use crate::adapters::system::bounded_file::{self, Kinds};

/// The largest configuration file, in bytes.
const FILE_MAX: u64 = 262_144;

/// Reads the configuration file at `path`, of at most 256 KiB of TOML. Ends in bounded time.
///
/// # Errors
/// When the file cannot be used. The message continues a sentence that begins with the path.
pub(super) fn read(path: &Path) -> Result<Map<String, Value>, String> {
    let bytes = bounded_file::read_in_time(path, FILE_MAX, Kinds::PlainOrPipe)?;
    let text = std::str::from_utf8(bytes.expose())
        .map_err(|_position| "is not UTF-8 text; save it as UTF-8".to_owned())?;
    let text = text.trim_start_matches('\u{feff}');
    let built = Config::builder().add_source(File::from_str(text, FileFormat::Toml)).build();
    built
        .and_then(|config| config::Source::collect(&config))
        .map_err(|error| format!("is not a configuration file: {}", without_content(&error, text)))
}

/// Returns the place and the cause of `error`. The full text of the error would quote the line.
fn without_content(error: &ConfigError, text: &str) -> String {
    let ConfigError::FileParse { cause, .. } = error else {
        return "its values cannot be read".to_owned();
    };
    let Some(syntax) = cause.downcast_ref::<toml::de::Error>() else {
        return "a number is too large".to_owned();
    };
    let before = syntax.span().and_then(|span| text.get(..span.start)).unwrap_or_default();
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
    format!("line {line}, column {column}: {}", syntax.message())
}
