//! How to reach S3 and what speaks its protocol, and how it encrypts what is put there (spec O6).

use std::time::Duration;

use object_store::aws::{AmazonS3, AmazonS3Builder};
use object_store::{ClientOptions, RetryConfig};
use serde::Deserialize;

/// How to reach S3. What is empty is taken from the environment (`AWS_…`) or the machine's role.
#[derive(Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct S3Config {
    /// For servers other than Amazon's.
    pub endpoint: String,
    /// The region.
    pub region: String,
    /// Whether plain HTTP will do.
    pub allow_http: bool,
    /// Key.
    pub access_key_id: String,
    /// Its secret.
    pub secret_access_key: String,
    /// Who encrypts objects, with whose key.
    pub encryption: S3Encryption,
    /// For `sse-kms`: the key's id or ARN; empty: the account's own key for S3 (`aws/s3`).
    pub kms_key_id: String,
    /// For `sse-kms`: whether S3 derives the objects' keys from one for the bucket, which spares
    /// requests to KMS.
    pub bucket_key: bool,
}

/// What is asked of S3 with every object.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
pub enum S3Encryption {
    /// Nothing: what the bucket's default is. Amazon's is SSE-S3 since 2023.
    #[default]
    Bucket,
    /// Keys of S3 (`AES256`).
    SseS3,
    /// Keys of KMS (`aws:kms`).
    SseKms,
}

// By hand: secrets stay out of logs.
impl std::fmt::Debug for S3Config {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { endpoint, region, allow_http, encryption, .. } = self;
        write!(
            f,
            "S3Config {{ endpoint: {endpoint:?}, region: {region:?}, http: {allow_http}, \
             encryption: {encryption:?} }}"
        )
    }
}

impl S3Config {
    /// Adds what is wrong to `problems`.
    pub(super) fn validate(&self, problems: &mut Vec<String>) {
        if self.encryption == S3Encryption::SseKms {
            return;
        }
        for (name, is_set) in
            [("kms_key_id", !self.kms_key_id.is_empty()), ("bucket_key", self.bucket_key)]
        {
            if is_set {
                problems.push(format!(
                    "store.s3.{name}: means something only with store.s3.encryption = \"sse-kms\""
                ));
            }
        }
    }

    /// A client for a bucket.
    pub(super) fn open(&self, bucket: &str) -> object_store::Result<AmazonS3> {
        let mut builder = AmazonS3Builder::from_env()
            .with_bucket_name(bucket)
            .with_allow_http(self.allow_http)
            // Short: the stages have their own patience, and pause meanwhile.
            .with_retry(RetryConfig {
                max_retries: 2,
                retry_timeout: Duration::from_secs(20),
                ..RetryConfig::default()
            })
            .with_client_options(
                ClientOptions::new()
                    .with_allow_http(self.allow_http)
                    .with_connect_timeout(Duration::from_secs(5))
                    .with_timeout(Duration::from_secs(60)),
            );
        let settings = [
            ("aws_endpoint", self.endpoint.as_str()),
            ("aws_region", &self.region),
            ("aws_access_key_id", &self.access_key_id),
            ("aws_secret_access_key", &self.secret_access_key),
            ("aws_server_side_encryption", self.encryption.header()),
            ("aws_sse_kms_key_id", &self.kms_key_id),
            ("aws_sse_bucket_key_enabled", if self.bucket_key { "true" } else { "" }),
        ];
        for (key, value) in settings.into_iter().filter(|(_, value)| !value.is_empty()) {
            builder = builder.with_config(key.parse()?, value);
        }
        builder.build()
    }
}

impl S3Encryption {
    /// As `x-amz-server-side-encryption` has it; empty: not sent.
    const fn header(self) -> &'static str {
        match self {
            Self::Bucket => "",
            Self::SseS3 => "AES256",
            Self::SseKms => "aws:kms",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problems(config: &S3Config) -> Vec<String> {
        let mut problems = Vec::new();
        config.validate(&mut problems);
        problems
    }

    #[test]
    fn a_key_of_kms_goes_with_kms_only() {
        let mut config =
            S3Config { kms_key_id: "key".into(), bucket_key: true, ..S3Config::default() };
        assert_eq!(problems(&config).len(), 2);
        config.encryption = S3Encryption::SseS3;
        assert_eq!(problems(&config).len(), 2);
        config.encryption = S3Encryption::SseKms;
        assert!(problems(&config).is_empty());
    }

    #[test]
    fn secrets_are_not_shown() {
        let config = S3Config { secret_access_key: "hush".into(), ..S3Config::default() };
        assert!(!format!("{config:?}").contains("hush"));
    }
}
