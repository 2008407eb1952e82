//! The socket's place, and who serves there already.

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
            format!("{address} is what an ended process left behind; serve replaces it"),
        ),
        Ok(Occupancy::Served) => served(address).await,
        Err(error) => Finding::told(Area::Socket, &error.to_string()),
    });
}

/// What the one who serves there says of itself.
async fn served(address: &SocketAddress) -> Finding {
    let failing = |what: String| {
        let remedy = "see its log; if it is no provider, choose another --listen-address";
        Finding::fail(Area::Socket, what, remedy)
    };
    match timeout(CALL_BUDGET, status(address)).await {
        Ok(Ok(told)) if told.healthz == "ok" => Finding::pass(
            Area::Socket,
            format!("a provider serves at {address}: ok, {}", printable(&told.key_id)),
        ),
        Ok(Ok(told)) => {
            failing(format!("the provider at {address} says {}", printable(&told.healthz)))
        }
        Ok(Err(problem)) => {
            failing(format!("whoever serves at {address} says {}", printable(&problem)))
        }
        Err(_elapsed) => failing(format!("whoever serves at {address} does not answer")),
    }
}

async fn status(address: &SocketAddress) -> Result<StatusResponse, String> {
    let mut kms = client::connect(address).await.map_err(|error| error.to_string())?;
    let told = kms.status(StatusRequest {}).await.map_err(|status| status.message().to_owned())?;
    Ok(told.into_inner())
}

/// Somebody else's text, on one line and of bounded length.
fn printable(text: &str) -> String {
    text.chars().take(300).map(|c| if c.is_control() { '?' } else { c }).collect()
}
