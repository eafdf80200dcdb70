//! What is asked of S3 about encryption arrives there (spec O6).

use bytes::Bytes;
use cloud_core::store::object::{Objects, StoreConfig};
use cloud_core::store::s3::{S3Config, S3Encryption};

use crate::support::services::{ask_s3, new_bucket};

/// The headers about encryption of an object that was put so.
async fn headers(encryption: S3Encryption, kms_key_id: &str, bucket_key: bool) -> Vec<String> {
    let StoreConfig { url, s3 } = new_bucket().await;
    let s3 = S3Config { encryption, kms_key_id: kms_key_id.into(), bucket_key, ..s3 };
    let path = format!("/{}/object", url.strip_prefix("s3://").unwrap());
    let objects = Objects::open(&StoreConfig { url, s3 }).unwrap();
    objects.put("object", Bytes::from_static(b"x")).await.unwrap();
    assert!(objects.exists("object").await.unwrap());
    let answer = ask_s3("HEAD", &path).await.to_ascii_lowercase();
    let about = answer.lines().filter_map(|line| line.strip_prefix("x-amz-server-side-encryption"));
    let mut about: Vec<String> = about.map(str::to_owned).collect();
    about.sort();
    about
}

#[tokio::test]
async fn an_object_is_encrypted_as_the_configuration_says() {
    assert_eq!(headers(S3Encryption::SseS3, "", false).await, [": aes256"]);
    assert_eq!(headers(S3Encryption::SseKms, "", false).await, [": aws:kms"]);
    let with_key = headers(S3Encryption::SseKms, "alias/penstock", true).await;
    assert!(with_key.contains(&": aws:kms".to_owned()), "{with_key:?}");
    assert!(with_key.contains(&"-aws-kms-key-id: alias/penstock".to_owned()), "{with_key:?}");
    assert!(with_key.contains(&"-bucket-key-enabled: true".to_owned()), "{with_key:?}");
}
