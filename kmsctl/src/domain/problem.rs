//! An error: what failed, why, and what to do.

use std::fmt;

/// An error of this program, on one line. Contains no secret and no value of an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The stable code, such as `etcd-unreachable`.
    pub code: &'static str,
    /// What failed, and why.
    pub cause: String,
    /// What to do.
    pub remedy: String,
}

impl Problem {
    /// Makes an error of its parts. Control characters in `cause` become spaces.
    #[must_use]
    pub fn new(code: &'static str, cause: impl fmt::Display, remedy: impl Into<String>) -> Self {
        let cause = cause.to_string().replace(char::is_control, " ");
        Self { code, cause, remedy: remedy.into() }
    }
}

/// Says where a file has another form than expected: at a line and a column. Use this in place of
/// a parser's error, which can repeat the file. The file may hold keys, or be named by mistake.
#[must_use]
pub fn another_form<N: fmt::Display>(place: Option<(N, N)>) -> String {
    match place {
        Some((line, column)) => format!("it has another form at line {line}, column {column}"),
        None => "it has another form".to_owned(),
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}; {}", self.code, self.cause, self.remedy)
    }
}

impl std::error::Error for Problem {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_one_line_without_control_characters() {
        let problem = Problem::new("code", "a\nb\x1b[2Jc\u{9b}d", "do this");
        assert_eq!(problem.to_string(), "code: a b [2Jc d; do this");
    }
}
