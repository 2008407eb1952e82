//! A real OpenBao, or the server that `VAULT_ADDR` names: one server for the whole suite, a key
//! and a role of its own for each rule.

use vault_kube_kms::testkit::hold_to_every_rule;

use crate::support::{
    openbao::{OpenBao, named_by_the_environment},
    transit::TransitSubject,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_real_server_keeps_every_rule() {
    let (admin, _server) = match named_by_the_environment() {
        Some(admin) => (admin, None),
        None => {
            let Some(server) = OpenBao::start().await else { return };
            (server.admin.clone(), Some(server))
        }
    };
    admin.mount().await;
    let run = std::process::id();
    hold_to_every_rule(|rule| {
        let admin = admin.clone();
        async move {
            let provisioned = admin.provision(&format!("{rule}-{run}")).await;
            TransitSubject::new(admin, provisioned)
        }
    })
    .await;
}
