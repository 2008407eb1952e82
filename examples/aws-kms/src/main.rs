//! `aws-kube-kms`: see `aws-kube-kms --help`.

vault_kube_kms::program!(aws_kube_kms::settings::AWS_KMS);
