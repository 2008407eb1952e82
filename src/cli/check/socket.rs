//! The socket's place, and who serves there already.

use std::path::Path;

use crate::{
    adapters::grpc::{
        address::SocketAddress,
        client,
        socket::{Survey, survey},
        wire::StatusRequest,
    },
    cli::{
        finding::{Area, Finding, Report},
        warnings::mode_of,
    },
    config::settings::Settings,
};

pub(super) async fn check(settings: &Settings, report: &mut Report) {
    let address = &settings.listen;
    report.add(match survey(address) {
        Ok(Survey::Free) => Finding::pass(Area::Socket, format!("{address} is free")),
        Ok(Survey::Stale) => Finding::pass(
            Area::Socket,
            format!("{address} is what an ended process left behind; serve replaces it"),
        ),
        Ok(Survey::Served) => served(address).await,
        Err(error) => Finding::fail(Area::Socket, error.to_string(), ""),
    });
    if let SocketAddress::File(path) = address
        && let Some(directory) = path.parent()
        && mode_of(directory).is_some_and(|mode| mode & 0o002 != 0)
    {
        report.add(open_to_all(directory));
    }
}

fn open_to_all(directory: &Path) -> Finding {
    Finding::warn(
        Area::Socket,
        format!(
            "everybody may write to {}, and could be first to listen there",
            directory.display()
        ),
        "use a directory of the provider's own with --listen-address",
    )
}

/// What the one who serves there says of itself.
async fn served(address: &SocketAddress) -> Finding {
    let told = match client::connect(address).await {
        Ok(mut kms) => kms.status(StatusRequest {}).await.map_err(|s| s.message().to_owned()),
        Err(error) => Err(error.to_string()),
    };
    match told.map(tonic::Response::into_inner) {
        Ok(status) if status.healthz == "ok" => Finding::pass(
            Area::Socket,
            format!("a provider serves at {address}: ok, {}", status.key_id),
        ),
        Ok(status) => Finding::fail(
            Area::Socket,
            format!("the provider at {address} is unhealthy: {}", status.healthz),
            "",
        ),
        Err(problem) => Finding::fail(
            Area::Socket,
            format!("whoever serves at {address} answers Status with: {problem}"),
            "",
        ),
    }
}
