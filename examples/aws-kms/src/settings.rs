//! Settings of `--keeper=aws-kms`.

use std::{env, error::Error, path::PathBuf, sync::Arc};

use aws_config::{BehaviorVersion, Region};
use futures_util::FutureExt as _;
use http::Uri;
use vault_kube_kms::{
    adapters::system::bounded_file::{Kinds, read_in_time},
    prelude::*,
};

use crate::{
    keeper::{AwsKeeper, LIST_MAX},
    keys,
};

const FLAGS: &[Group] = &[(
    "AWS KMS (credentials as for every AWS tool)",
    &[
        flag(
            "aws-keys-file",
            Takes::Value("FILE"),
            "",
            "ARN of a symmetric key in each line: line n is version n. To rotate, append a new key on all nodes within --rotation-delay of its creation; never remove a line (required)",
        ),
        flag("aws-endpoint", Takes::Value("URL"), "", "Interface endpoint; empty: the public one"),
    ],
)];

/// `--keeper=aws-kms`.
#[derive(Debug)]
pub struct AwsKms;

impl KeeperKind for AwsKms {
    fn name(&self) -> &'static str {
        "aws-kms"
    }

    fn flags(&self) -> &'static [Group] {
        FLAGS
    }

    fn read(&self, reading: &mut Reading<'_>) -> Option<Arc<dyn KeeperSettings>> {
        let keys = reading.required("aws-keys-file", |path| {
            let text = read_in_time(path.as_ref(), LIST_MAX, Kinds::Plain);
            let arns = text.and_then(|text| keys::parse(&String::from_utf8_lossy(text.expose())));
            let first = arns.map(|mut arns| arns.swap_remove(0));
            first.map(|first| (path.into(), first)).map_err(|why| format!("{path}: {why}"))
        });
        let endpoint = reading.parsed("aws-endpoint", endpoint);
        let ((list, first), endpoint) = (keys?, endpoint?);
        Some(Arc::new(AwsSettings { list, first, endpoint }))
    }
}

/// Parses `--aws-endpoint`. Accepts HTTP on the loopback address alone, because requests carry seeds.
fn endpoint(text: &str) -> Result<Option<Uri>, String> {
    let uri = text.parse::<Uri>().ok();
    match uri.as_ref().map(|uri| (uri.scheme_str(), uri.host())) {
        _ if text.is_empty() => Ok(None),
        Some((Some("https"), Some(_)) | (Some("http"), Some("127.0.0.1"))) => Ok(uri),
        _ => Err(format!("{text:?} is not a valid endpoint; write https://HOST")),
    }
}

#[derive(Debug)]
struct AwsSettings {
    list: PathBuf,
    first: String,
    endpoint: Option<Uri>,
}

impl KeeperSettings for AwsSettings {
    fn connection(&self) -> String {
        self.first.clone()
    }

    fn needs(&self, needs: &mut Needs) {
        let variables =
            ["AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE", "AWS_WEB_IDENTITY_TOKEN_FILE"];
        let given = variables.iter().filter_map(env::var_os).map(PathBuf::from);
        let usual = env::var_os("HOME").map(|home| PathBuf::from(home).join(".aws/credentials"));
        needs.read.extend(given.chain(usual.filter(|file| file.exists())));
        needs.read.push(self.list.clone());
        // AWS KMS and AWS STS listen on 443, the metadata service of a node on 80.
        needs.connect("kms.amazonaws.com", 443);
        needs.ports.push(80);
        needs.ports.extend(self.endpoint.as_ref().and_then(Uri::port_u16));
    }

    fn open(&self, _: &Surroundings) -> Result<Arc<dyn Keeper>, Box<dyn Error + Send + Sync>> {
        let mut loader = aws_config::defaults(BehaviorVersion::latest())
            .region(keys::region(&self.first).map(|region| Region::new(region.to_owned())));
        if let Some(endpoint) = &self.endpoint {
            loader = loader.endpoint_url(endpoint.to_string());
        }
        // Reads files and variables. With a region, this does not wait for a server.
        let config = loader
            .load()
            .now_or_never()
            .ok_or("the AWS SDK did not read its configuration at once")?;
        Ok(Arc::new(AwsKeeper::new(&config, self.list.clone(), self.first.clone())))
    }
}
