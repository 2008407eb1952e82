//! The answers of a proxy between a plugin and a node.

use http::{Response, header};
use serde_json::json;

use crate::chance::Chance;

/// The requests that a proxy answers itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Caught {
    All,
    Logins,
    Reads,
    Renewals,
    Unwraps,
}

/// The form of its answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Body {
    Html,
    /// JSON of another program.
    ForeignJson,
    /// An answer in the keeper's form. No client can tell it from an answer of the keeper.
    Forged,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Page {
    pub caught: Caught,
    pub status: u16,
    pub body: Body,
}

impl Page {
    pub fn any(chance: &mut Chance) -> Self {
        use Caught::{All, Logins, Reads, Renewals, Unwraps};
        let pick = |chance: &mut Chance, count: usize| chance.below(count as u64) as usize;
        let caught = [All, Logins, Reads, Renewals, Unwraps][pick(chance, 5)];
        let status = [200, 301, 400, 403, 404, 502, 503][pick(chance, 7)];
        let body = [Body::Html, Body::ForeignJson][pick(chance, 2)];
        Self { caught, status, body }
    }

    /// Returns whether the proxy answers a request for `path`.
    pub fn answers(self, path: &str) -> bool {
        match self.caught {
            Caught::All => true,
            Caught::Logins => path == "auth/approle/login",
            Caught::Reads => path == "transit/keys/k1",
            Caught::Renewals => path == "auth/token/renew-self",
            Caught::Unwraps => path == "transit/decrypt/k1",
        }
    }

    /// Returns the event that a proxy answers a request for `path`.
    pub fn event(path: &str) -> &'static str {
        match path {
            "auth/approle/login" => "page to a login",
            "auth/token/renew-self" => "page to a renewal",
            "transit/keys/k1" => "page to a read",
            "transit/decrypt/k1" => "page to an unwrap",
            _ => "page to another request",
        }
    }

    /// Returns the head and the text of the answer.
    pub fn answer(self) -> (http::response::Builder, String) {
        let (kind, text) = match self.body {
            Body::Html => ("text/html", format!("<html><h1>{}</h1></html>", self.status)),
            Body::ForeignJson => {
                let text = json!({"message": "permission denied", "error": "invalid role or secret ID",
                    "code": self.status, "errors": null});
                ("application/json", text.to_string())
            }
            Body::Forged => {
                ("application/json", json!({"errors": ["permission denied"]}).to_string())
            }
        };
        let mut head = Response::builder().status(self.status).header(header::CONTENT_TYPE, kind);
        if self.status == 301 {
            head = head.header(header::LOCATION, "https://login.example.com/");
        }
        (head, text)
    }
}
