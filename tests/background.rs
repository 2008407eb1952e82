//! Tests the end of a process whose background task ends: a half-dead process would hold the socket.
#![allow(
    missing_docs,
    clippy::pedantic,
    clippy::restriction,
    clippy::disallowed_methods,
    reason = "tests"
)]

use std::{
    env,
    ffi::OsString,
    process::{Command, ExitCode},
    sync::Arc,
};

use vault_kube_kms::prelude::*;

const SOCKET: &str = "VAULT_KUBE_KMS_TEST_SOCKET";

/// A keeper without a key, with one task that ends at once.
#[derive(Debug)]
struct Ends;

fn no_key<T>() -> Result<T, KmsError> {
    Err(KmsError::new(Code::KeeperUnreachable, "a test", "none"))
}

#[async_trait]
impl Kek for Ends {
    async fn describe(&self, _: Monotonic) -> Result<KekSnapshot, KmsError> {
        no_key()
    }

    async fn wrap(
        &self,
        _: KekVersion,
        _: &Plaintext,
        _: &AssociatedData,
        _: Monotonic,
    ) -> Result<Wrapped, KmsError> {
        no_key()
    }

    async fn unwrap<'a>(&self, _: Unwrap<'a>, _: Monotonic) -> Result<Plaintext, KmsError> {
        no_key()
    }
}

impl Keeper for Ends {
    fn kek(self: Arc<Self>) -> Arc<dyn Kek> {
        self
    }

    fn lineage(&self) -> Lineage {
        Lineage::of_place("ends", &[])
    }

    fn tasks(&self) -> Vec<(&'static str, Task)> {
        vec![("short task", Box::pin(async {}))]
    }
}

impl KeeperSettings for Ends {
    fn connection(&self) -> String {
        "none".to_owned()
    }

    fn needs(&self, _: &mut Needs) {}

    fn open(&self, _: &Surroundings) -> Opened {
        Ok(Arc::new(Self))
    }
}

#[test]
fn a_task_that_ends_ends_the_process_with_its_name_in_the_last_line() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("kms.sock");
    let mut command = Command::new(env::current_exe().unwrap());
    command.args(["--exact", "serves_when_told", "--ignored", "--nocapture"]);
    let output = command.env(SOCKET, &socket).output().unwrap();
    let [out, err] = [output.stdout, output.stderr].map(|text| String::from_utf8(text).unwrap());
    assert!(output.status.success(), "{out}{err}");
    let last = err.lines().last().unwrap();
    assert!(last.contains("the background task \"short task\" ended"), "{err}");
    assert!(!socket.exists(), "the socket goes with the process");
}

/// The part of the test above that runs as another process.
#[test]
#[ignore = "run by another test, as another process"]
fn serves_when_told() {
    let Ok(socket) = env::var(SOCKET) else { return };
    let listen = format!("--listen-address={socket}");
    let args = ["test", "serve", "--no-sandbox", "--health-port=0", "--metrics-port=0", &listen];
    let keeper = KeeperKind::new("ends", &[], |_| Some(Arc::new(Ends)));
    let program = Program::new("test-kube-kms", "test 1", "A test.").keeper(keeper);
    let code = program.run(args.iter().map(OsString::from));
    assert_eq!(format!("{code:?}"), format!("{:?}", ExitCode::FAILURE));
}
