//! Checks the address of the socket, and the provider that may already serve there.

use tokio::time::timeout;

use crate::{
    adapters::grpc::{
        address::SocketAddress,
        client,
        socket::{Occupancy, inspect},
        wire::{StatusRequest, StatusResponse},
    },
    config::settings::Settings,
    domain::time::CALL_BUDGET,
    ports::finding::{Area, Finding, Report},
};

pub(super) async fn check(settings: &Settings, report: &mut Report) {
    let address = &settings.listen;
    report.add(match inspect(address) {
        Ok(Occupancy::Free) => Finding::pass(Area::Socket, format!("{address} is free")),
        Ok(Occupancy::Stale) => Finding::pass(
            Area::Socket,
            format!("{address} is a socket that an ended process left behind; serve replaces it"),
        ),
        Ok(Occupancy::Served { uid }) => served(address, uid).await,
        Err(error) => Finding::from_text(Area::Socket, &error.to_string()),
    });
}

/// Reports what the process at `address` answers to Status. `uid` is its user if it is another one.
async fn served(address: &SocketAddress, uid: Option<u32>) -> Finding {
    let of = uid.map(|uid| format!(" of uid {uid}")).unwrap_or_default();
    let failing = |what: String| {
        let remedy = "see its log; if it is not a KMS provider, choose another --listen-address";
        Finding::fail(Area::Socket, what, remedy)
    };
    match timeout(CALL_BUDGET, status(address)).await {
        Ok(Ok(status)) if status.healthz == "ok" => Finding::pass(
            Area::Socket,
            format!("a provider{of} serves at {address}: ok, {}", printable(&status.key_id)),
        ),
        Ok(Ok(status)) => {
            failing(format!("the provider{of} at {address} reports {}", printable(&status.healthz)))
        }
        Ok(Err(problem)) => failing(format!(
            "Status of the provider{of} at {address} fails: {}",
            printable(&problem)
        )),
        Err(_elapsed) => {
            failing(format!("the process{of} that listens at {address} does not answer"))
        }
    }
}

async fn status(address: &SocketAddress) -> Result<StatusResponse, String> {
    let mut kms = client::connect(address).await.map_err(|error| error.to_string())?;
    let answer =
        kms.status(StatusRequest {}).await.map_err(|status| status.message().to_owned())?;
    Ok(answer.into_inner())
}

/// Returns at most 300 characters of text from another process, with `?` for control characters.
fn printable(text: &str) -> String {
    text.chars().take(300).map(|c| if c.is_control() { '?' } else { c }).collect()
}
