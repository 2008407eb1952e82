//! `rewrite`: makes the API server store every object again that it stored in an old form.

mod driver;
mod patience;
mod progress;
mod report;

use std::{num::NonZeroU32, path::PathBuf, time::Duration};

use driver::{Driver, Limits};
use patience::Patience;
use progress::Bar;

use super::outcome::{Outcome, print};
use crate::{
    adapters::{api_server::ApiServer, saved_run::SavedRun},
    domain::{
        problem::Problem,
        resource::ResourceName,
        rewrite::{Demand, Ending, Run},
    },
    ports::rewriting::{Refusal, Resource, Scope, Storage},
};

/// Stores objects again, through the API server, until nothing is left under an old key id.
///
/// The API server writes only the objects that are stored in an old form: under an old key id, by
/// another provider, in clear text or in an old version of the API. Their content does not change,
/// and never reaches this program. The work goes in passes, and ends with a pass in which the API
/// server had nothing to write. Run it at the earliest 10 minutes after a rotation, when every API
/// server writes under the new key id.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The resources, as an `EncryptionConfiguration` names them: secrets,widgets.example.com
    #[arg(long, value_name = "RESOURCES", required = true, value_delimiter = ',',
          value_parser = ResourceName::parse)]
    resource: Vec<ResourceName>,

    /// Only the objects of this namespace.
    #[arg(long, value_name = "NAME")]
    namespace: Option<String>,

    /// Only the objects with these labels, such as app=db,tier!=test
    #[arg(long, value_name = "LABELS")]
    selector: Option<String>,

    /// The kubeconfig. Without it: $KUBECONFIG, ~/.kube/config, or the service account of this Pod.
    #[arg(long, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,

    /// The context of the kubeconfig.
    #[arg(long, value_name = "NAME")]
    context: Option<String>,

    /// The objects per second, at most.
    #[arg(long, value_name = "NUMBER", default_value = "50")]
    rate: NonZeroU32,

    /// The requests under way at once, at most.
    #[arg(long, value_name = "NUMBER", default_value_t = 4,
          value_parser = clap::value_parser!(u16).range(1..=64))]
    parallel: u16,

    /// How many seconds to wait for an API server that does not answer.
    #[arg(long, value_name = "SECONDS", default_value_t = 300)]
    patience: u64,

    /// Keep in this file how far the work is. The same command goes on from there, and removes the
    /// file at the end.
    #[arg(long, value_name = "FILE")]
    state: Option<PathBuf>,

    /// Let the API server and its webhooks check each write, and write nothing.
    #[arg(long)]
    dry_run: bool,

    /// Print the `ClusterRole` that the work needs, and do nothing.
    #[arg(long)]
    print_role: bool,

    /// The form of the answer.
    #[arg(long, value_enum, default_value = "text")]
    output: Output,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Output {
    Text,
    Json,
}

pub(super) async fn run(mut args: Args) -> Result<Outcome, Problem> {
    args.resource.sort();
    args.resource.dedup();
    if args.print_role {
        print(&report::role(&args.resource));
        return Ok(Outcome::Good);
    }
    let server =
        ApiServer::connect(args.kubeconfig.as_deref(), args.context.take(), args.dry_run).await?;
    let saved = args.state.as_deref().map(SavedRun::at);
    let bar = Bar::new(saved.clone());
    let patience = Patience::new(&server, &bar, Duration::from_secs(args.patience));
    let resources = served(&server, &patience, &args.resource).await?;
    let demand = Demand {
        server: server.name(),
        resources: args.resource.iter().map(ToString::to_string).collect(),
        namespace: args.namespace.clone(),
        selector: args.selector.clone(),
        dry_run: args.dry_run,
    };
    let mut run = begin(saved.as_ref(), demand)?;
    let driver = Driver {
        left: &server,
        storage: &server,
        progress: &bar,
        resources: &resources,
        scope: &Scope { namespace: args.namespace, selector: args.selector },
        limits: Limits {
            interval: Duration::from_secs(1) / args.rate.get(),
            parallel: usize::from(args.parallel),
        },
        patience,
    };
    let ending = driver.drive(&mut run).await;
    bar.end();
    let ending = ending?;
    if let Some(saved) = saved {
        saved.remove()?;
    }
    print(&match args.output {
        Output::Text => report::text(&run, ending),
        Output::Json => report::json(&run, ending),
    });
    Ok(match ending {
        Ending::Proven | Ending::Dry => Outcome::Good,
        Ending::Failed | Ending::Restless | Ending::Again => Outcome::Bad,
    })
}

/// Returns the saved run if it has the same demand, or a new one.
fn begin(saved: Option<&SavedRun>, demand: Demand) -> Result<Run, Problem> {
    match saved.map(SavedRun::load).transpose()?.flatten() {
        None => Ok(Run::new(demand)),
        Some(run) if run.can_go_on(&demand) => Ok(run),
        Some(_) => Err(Problem::new(
            "state-of-another-run",
            "the state file belongs to a run with another API server or other flags",
            "give the same flags as then, name another file with --state, or remove the file to \
             begin again",
        )),
    }
}

/// Returns how the API server serves each resource.
async fn served(
    server: &ApiServer,
    patience: &Patience<'_>,
    names: &[ResourceName],
) -> Result<Vec<Resource>, Problem> {
    let mut found = Vec::with_capacity(names.len());
    for name in names {
        let resource = patience.call(|| server.resource(name)).await?;
        found.push(resource.map_err(|refusal| not_served(name, &refusal))?);
    }
    Ok(found)
}

fn not_served(name: &ResourceName, refusal: &Refusal) -> Problem {
    let why = match refusal {
        Refusal::Gone => {
            "the API server does not serve it with the verbs list and patch".to_owned()
        }
        Refusal::Rejected(why) | Refusal::Internal(why) => why.clone(),
        other => format!("the answer is not expected: {other:?}"),
    };
    Problem::new(
        "resource-not-served",
        format!("cannot find the resource {name}: {why}"),
        "write it as kubectl api-resources names it: the plural name, and its group after a dot",
    )
}
