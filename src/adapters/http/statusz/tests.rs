use http_body_util::BodyExt as _;

use super::*;

fn statusz() -> Statusz {
    let problem = Problem {
        code: "keeper-sealed",
        cause: "the keeper says: <script>".to_owned(),
        remedy: "unseal it".to_owned(),
    };
    Statusz {
        version: "vault-kube-kms 0.0.0".to_owned(),
        fips: true,
        now: "2026-01-01T00:00:00Z".to_owned(),
        process: "00112233445566778899aabbccddeeff".to_owned(),
        uptime_s: 7,
        state: "failing",
        problem: Some(problem.clone()),
        outage_policy: "stop-writes",
        outage_grace_s: 30,
        sandbox: Sandbox {
            on: true,
            in_force: vec!["no capabilities".to_owned(), "seccomp".to_owned()],
            missing: vec!["no Landlock".to_owned()],
        },
        versions: Vec::new(),
        versions_seen: 0,
        writing_s: None,
        takeover: Some(Takeover { version: 3, in_s: 12 }),
        key_read_s_ago: Some(4),
        proven_s_ago: None,
        expiries: vec![
            Expiry {
                what: "jwt",
                name: "the JWT of the login",
                at: "2026-01-01T00:00:00Z".to_owned(),
                left_s: 0,
                is_soon: true,
            },
            Expiry {
                what: "client-certificate",
                name: "the client certificate",
                at: "2026-03-01T00:00:00Z".to_owned(),
                left_s: 59 * 86_400,
                is_soon: false,
            },
        ],
        session: Some(SessionStatus {
            login: "auth/approle (approle)".to_owned(),
            state: "closed",
            logins: None,
            token_left_s: None,
            problem: Some(problem),
        }),
        endpoints: Vec::new(),
        last_errors: Vec::new(),
    }
}

async fn asked(uri: &str, accept: Option<&'static str>) -> (String, String) {
    let mut headers = HeaderMap::new();
    if let Some(accept) = accept {
        headers.insert(header::ACCEPT, HeaderValue::from_static(accept));
    }
    let response = statusz().answer(&uri.parse().unwrap(), &headers);
    let kind = response.headers()[header::CONTENT_TYPE].to_str().unwrap().to_owned();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    (kind, String::from_utf8(body.to_vec()).unwrap())
}

#[tokio::test]
async fn escapes_all_text_of_the_page() {
    let (kind, page) = asked("/statusz", Some("text/html,application/json")).await;
    assert!(kind.starts_with("text/html"));
    assert!(page.contains("docs/failure-modes.md#keeper-sealed"));
    assert!(page.contains("Sandbox: no capabilities, seccomp. Missing: no Landlock."), "{page}");
    assert!(page.contains("<td class=\"failing\">expired</td>") && page.contains("59 d"), "{page}");
    assert!(page.contains("&lt;script&gt;") && !page.contains("<script>"));
}

#[test]
fn says_what_happens_next() {
    let next = |state, takeover| {
        let page = page::page(&Statusz { state, takeover, ..statusz() }).into_string();
        page.split_once("Next: </b>").unwrap().1.split_once("</p>").unwrap().0.to_owned()
    };
    let takeover = Some(Takeover { version: 3, in_s: 3_591 });
    assert!(next("healthy", takeover).starts_with("version 3 writes in 59 min, on all nodes"));
    assert_eq!(next("healthy", None), "no change is due.");
    assert!(next("failing", takeover).starts_with("no Encrypt succeeds until"));
    assert!(next("ailing", None).contains("keeps writing"));
}

#[tokio::test]
async fn answers_json_on_request() {
    for (uri, accept) in [("/statusz", Some("application/json")), ("/statusz?format=json", None)] {
        let (kind, json) = asked(uri, accept).await;
        assert_eq!(kind, "application/json");
        let json: serde_json::Value = serde_json::from_str(&json).unwrap();
        assert_eq!(json["problem"]["code"], "keeper-sealed");
        assert_eq!(json["fips"], true);
        assert_eq!(json["takeover"]["version"], 3);
        assert_eq!(json["sandbox"]["in_force"][1], "seccomp");
        assert_eq!(json["expiries"][0]["what"], "jwt");
        assert_eq!(json["proven_s_ago"], serde_json::Value::Null);
    }
}
