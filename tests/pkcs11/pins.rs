//! Tests that a refused PIN is sent once, and that the last try of a token is kept.

use super::token::{PIN, Token, encrypt, until};

#[tokio::test(flavor = "multi_thread")]
async fn sends_a_wrong_pin_once_and_recovers_with_the_right_one() {
    let Some(token) = Token::behind_a_stand_in() else { return };
    token.init();
    let before = token.calls("login");
    token.write_pin("wrong-canary");
    let served = token.serve(&[]).await;
    served.says("the PIN is refused", |text| text.starts_with("login-refused")).await;
    assert!(token.has_fewer_tries());
    // A login by hand resets the flags.
    token.tool_logged_in(&["--list-objects"]);
    // The observer and the API server go on asking.
    let mut client = served.client().await;
    for _ in 0..20 {
        encrypt(&mut client, b"a seed of thirty-two bytes, long").await.unwrap_err();
    }
    // Neither the same PIN in a new file nor SIGHUP has it sent again.
    token.write_pin("wrong-canary");
    served.hang_up();
    until("the observer looked again", async || served.log().contains("SIGHUP")).await;
    served.says("the PIN is refused", |text| text.contains("is not tried again")).await;
    assert!(!token.has_fewer_tries());
    assert_eq!(token.calls("login"), before + 1);
    token.write_pin(PIN);
    served.is_healthy().await;
    assert_eq!(token.calls("login"), before + 2);
    assert!(
        !served.log().contains("wrong-canary") && !served.log().contains(PIN),
        "{}",
        served.log()
    );
}

/// The flags of the token show that the PIN was counted.
#[tokio::test(flavor = "multi_thread")]
async fn sends_a_wrong_pin_once_if_the_token_answers_with_a_general_error() {
    let Some(token) = Token::behind_a_stand_in() else { return };
    token.init();
    let before = token.calls("login");
    token.switch("vague", true);
    token.write_pin("wrong-canary");
    let served = token.serve(&[]).await;
    served.says("the PIN is refused", |text| text.contains("is not tried again")).await;
    assert_eq!(token.calls("login"), before + 1);
    token.write_pin(PIN);
    served.is_healthy().await;
}

/// Neither the answer nor the flags of the token show that the PIN was counted.
#[tokio::test(flavor = "multi_thread")]
async fn sends_a_wrong_pin_twice_if_the_token_reports_nothing() {
    let Some(token) = Token::behind_a_stand_in() else { return };
    token.init();
    let before = token.calls("login");
    token.switch("vague", true);
    token.switch("no-flags", true);
    token.write_pin("wrong-canary");
    let served = token.serve(&[]).await;
    served.says("the PIN may be wrong", |text| text.contains("may mean a wrong PIN")).await;
    assert_eq!(token.calls("login"), before + 2);
    token.write_pin(PIN);
    served.is_healthy().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn keeps_the_last_try() {
    let Some(token) = Token::behind_a_stand_in() else { return };
    token.init();
    let before = token.calls("login");
    token.switch("final-try", true);
    let served = token.serve(&[]).await;
    served.says("the PIN is kept back", |text| text.contains("would lock the token")).await;
    assert_eq!(token.calls("login"), before);
    // A login by hand resets the flags.
    token.switch("final-try", false);
    served.is_healthy().await;
    assert_eq!(token.calls("login"), before + 1);
}

/// The operator reads the error, and writes the right PIN.
#[tokio::test(flavor = "multi_thread")]
async fn leaves_the_last_try_to_a_new_pin() {
    let Some(token) = Token::behind_a_stand_in() else { return };
    token.init();
    token.write_pin("wrong-canary");
    token.switch("final-try", true);
    let served = token.serve(&[]).await;
    served.says("the PIN is kept back", |text| text.contains("would lock the token")).await;
    token.write_pin(PIN);
    served.is_healthy().await;
}
