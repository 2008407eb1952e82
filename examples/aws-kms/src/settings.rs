//! Settings of `--keeper=aws-kms`.

use std::{env, path::PathBuf, sync::Arc};

use aws_config::{BehaviorVersion, Region};
use futures_util::FutureExt as _;
use vault_kube_kms::prelude::*;

use crate::{keeper::AwsKek, keys};

/// `--keeper=aws-kms`.
pub const AWS_KMS: KeeperKind = KeeperKind::new("aws-kms", FLAGS, read);

const FLAGS: &[Group] = &[(
    "AWS KMS (credentials as for every AWS tool)",
    &[
        flag(
            "aws-keys-file",
            Takes::Value("FILE"),
            "",
            "ARN of a symmetric key in each line: line n is version n. To rotate, append a new key on all nodes within --rotation-delay; never remove a line (required)",
        ),
        flag("aws-endpoint", Takes::Value("URL"), "", "Interface endpoint; empty: the public one"),
    ],
)];

fn read(reading: &mut Reading<'_>) -> Option<Arc<dyn KeeperSettings>> {
    let keys = reading.file("aws-keys-file", keys::LIST_MAX, keys::parse);
    let endpoint = reading.url("aws-endpoint");
    Some(Arc::new(AwsSettings { keys: keys?, endpoint: endpoint? }))
}

#[derive(Debug)]
struct AwsSettings {
    keys: ParsedFile<Vec<String>>,
    endpoint: Option<Uri>,
}

impl KeeperSettings for AwsSettings {
    fn connection(&self) -> String {
        self.keys.at_start()[0].clone()
    }

    fn needs(&self, needs: &mut Needs) {
        let variables =
            ["AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE", "AWS_WEB_IDENTITY_TOKEN_FILE"];
        let given = variables.iter().filter_map(env::var_os).map(PathBuf::from);
        let usual = env::var_os("HOME").map(|home| PathBuf::from(home).join(".aws/credentials"));
        needs.read.extend(given.chain(usual.filter(|file| file.exists())));
        needs.read.push(self.keys.path().to_owned());
        // AWS KMS and AWS STS listen on 443, the metadata service of a node on 80.
        needs.connect("kms.amazonaws.com", 443);
        needs.ports.push(80);
        needs.ports.extend(self.endpoint.as_ref().and_then(Uri::port_u16));
    }

    fn open(&self, _: &Surroundings) -> Opened {
        let first = self.connection();
        let region = keys::region(&first).map(|region| Region::new(region.to_owned()));
        let mut loader = aws_config::defaults(BehaviorVersion::latest()).region(region);
        if let Some(endpoint) = &self.endpoint {
            loader = loader.endpoint_url(endpoint.to_string());
        }
        // Reads files and variables. With a region, this does not wait for a server.
        let config = loader.load().now_or_never().ok_or("the AWS SDK has no configuration")?;
        let lineage = Lineage::of_place("aws-kms", &[&first]);
        Ok(PlainKeeper::of(AwsKek::new(&config, self.keys.clone()), lineage))
    }
}
