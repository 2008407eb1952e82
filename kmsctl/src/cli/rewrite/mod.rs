//! `rewrite`: makes the API server store every object again that it stored in an old form.

mod driver;
mod in_etcd;
mod patience;
mod progress;
mod report;

use std::{path::PathBuf, time::Duration};

use driver::{Driver, Limits, compare};
use in_etcd::InEtcd;
use patience::Patience;
use progress::Bar;
use report::Report;

use super::{
    outcome::{Outcome, print},
    source::SourceArgs,
};
use crate::{
    adapters::{api_server::ApiServer, saved_run::SavedRun},
    domain::{
        problem::Problem,
        proof::{Found, found},
        resource::ResourceName,
        rewrite::{Demand, Run},
    },
    ports::rewriting::{Left, Refusal, Resource, Scope, Storage},
};

/// Stores objects again, through the API server, until nothing is left under an old key id.
///
/// The API server writes only the objects that are stored in an old form: under an old key id, by
/// another provider, in clear text or in an old version of the API. Their content does not change,
/// and never reaches this program. The work goes in passes, and ends with a pass in which the API
/// server had nothing to write. With etcd, an inventory of the resources proves it. Run it at the
/// earliest 10 minutes after a rotation, when every API server writes under the new key id.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The resources, as an `EncryptionConfiguration` names them: secrets,widgets.example.com
    #[arg(long, value_name = "RESOURCES", required = true, value_delimiter = ',',
          value_parser = ResourceName::parse)]
    resource: Vec<ResourceName>,

    /// Only the objects of this namespace.
    #[arg(long, value_name = "NAME")]
    namespace: Option<String>,

    /// Only the objects with these labels, such as app=db,tier!=test. Not with etcd, which knows none.
    #[arg(long, value_name = "LABELS",
          conflicts_with_all = ["etcd_servers", "api_server_manifest", "until_key_id"])]
    selector: Option<String>,

    #[command(flatten)]
    source: SourceArgs,

    /// Try only the objects that etcd has not under this key id. /statusz shows the one that writes.
    #[arg(long, value_name = "KEY_ID")]
    until_key_id: Option<String>,

    /// The kubeconfig. Without it: $KUBECONFIG, ~/.kube/config, or the service account of this Pod.
    #[arg(long, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,

    /// The context of the kubeconfig.
    #[arg(long, value_name = "NAME")]
    context: Option<String>,

    /// The objects per second, at most.
    #[arg(long, value_name = "NUMBER", default_value_t = 50,
          value_parser = clap::value_parser!(u32).range(1..=10_000))]
    rate: u32,

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
        print(&report::role(&args.resource))?;
        return Ok(Outcome::Good);
    }
    let server =
        ApiServer::connect(args.kubeconfig.as_deref(), args.context.take(), args.dry_run).await?;
    let etcd = in_etcd(&args).await?;
    let saved = args.state.as_deref().map(SavedRun::at);
    let bar = Bar::new(saved.clone());
    let patience = Patience::new(&server, &bar, Duration::from_secs(args.patience));
    let resources = served(&server, &patience, &args.resource).await?;
    let demand = Demand {
        server: server.name(),
        resources: args.resource.iter().map(ToString::to_string).collect(),
        namespace: args.namespace.clone(),
        selector: args.selector.clone(),
        until_key_id: args.until_key_id.clone(),
        dry_run: args.dry_run,
    };
    let mut run = begin(saved.as_ref(), demand)?;
    let scope = Scope { namespace: args.namespace, selector: args.selector };
    let left: &dyn Left = match &etcd {
        Some(etcd) if args.until_key_id.is_some() => etcd,
        _ => &server,
    };
    let driver = Driver {
        left,
        storage: &server,
        progress: &bar,
        resources: &resources,
        scope: &scope,
        limits: Limits {
            interval: Duration::from_secs(1) / args.rate,
            parallel: usize::from(args.parallel),
        },
        patience,
    };
    let ending = driver.drive(&mut run).await;
    bar.end();
    let ending = ending?;
    let proof = match &etcd {
        Some(etcd) => {
            let (name, tally) = etcd.tally(&resources, &scope).await?;
            compare(&server, &driver.patience, &resources, &scope, &tally).await?;
            Some(Proof { etcd: name, found: found(&tally, args.until_key_id.as_deref()) })
        }
        None => None,
    };
    if let Some(saved) = saved {
        saved.remove()?;
    }
    let report = Report { run: &run, ending, proof: proof.as_ref() };
    print(&match args.output {
        Output::Text => report.text(),
        Output::Json => report.json(),
    })?;
    Ok(if report.is_good() { Outcome::Good } else { Outcome::Bad })
}

/// What etcd shows at the end.
#[derive(Debug)]
struct Proof {
    /// The name of etcd, and the revision that was read last.
    etcd: String,
    found: Vec<Found>,
}

/// Returns etcd, if the flags name it.
async fn in_etcd(args: &Args) -> Result<Option<InEtcd>, Problem> {
    if args.source.is_given() || args.until_key_id.is_some() {
        let source = args.source.source().await?;
        return Ok(Some(InEtcd::new(source, args.until_key_id.clone())));
    }
    Ok(None)
}

/// Returns the saved run if it has the same demand, or a new one.
fn begin(saved: Option<&SavedRun>, demand: Demand) -> Result<Run, Problem> {
    match saved.map(SavedRun::load).transpose()?.flatten() {
        None => Ok(Run::new(demand)),
        Some(run) if run.can_go_on(&demand) => Ok(run.resumed()),
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
