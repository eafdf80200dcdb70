//! What a gateway says about its spool on `gateway-status`: the other half of the loss ledger.
//!
//! **Contract**, format 1 (`docs/contracts/status.md`): key = gateway name, value = one JSON object.
//! Times are microseconds since the Unix epoch, epochs 16 hexadecimal digits, ranges half-open.
//! Fields unknown to this version are passed over; another `format` is refused. A status says
//! how things stand, so a lost, repeated or late one does no harm: the next one says it again.

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::event::{Epoch, UnixMicros};

/// The version of this format.
const FORMAT: u32 = 1;
/// The largest message that is read: the topic takes no larger one.
pub const BYTES_MAX: usize = 1 << 20;
/// How many epochs a status lists at most; the oldest come first, then the one being written.
pub const EPOCHS_MAX: usize = 4_096;
/// How many damaged ranges a status lists at most.
pub const DAMAGED_MAX: usize = 1_024;
/// How many counters of rejections a status lists at most.
pub const REJECTED_MAX: usize = 1_024;

/// How a gateway's spool stood at one moment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GatewayStatus {
    /// The version of the format.
    pub format: u32,
    /// The gateway's name.
    pub gateway: String,
    /// The gateway's wall clock, for people; the ledger goes by the bus's append time.
    pub sent_at: UnixMicros,
    /// The epoch that is being written, or will be by the next entry. It is listed too.
    #[serde(with = "hex")]
    pub epoch: Epoch,
    /// Every epoch of which the gateway still knows something, oldest first.
    pub epochs: Vec<EpochStatus>,
    /// Epochs that did not fit into the list. While there are any, nothing follows from an
    /// epoch's not being listed.
    #[serde(default)]
    pub epochs_more: u64,
    /// Numbers that were durable and can't be read any more.
    #[serde(default)]
    pub damaged: Vec<DamagedNumbers>,
    /// Damaged numbers beyond the listed ranges.
    #[serde(default)]
    pub damaged_more: u64,
    /// Rejections that were answered but not kept, since this epoch began, by device and reason;
    /// their sum is the epoch's `not_kept` where the list is whole.
    #[serde(default)]
    pub rejected_not_kept: Vec<RejectedCount>,
    /// The spool.
    pub spool: SpoolStatus,
    /// Whether the gateway's clock can't be relied on: its times keep order and mean no more.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub clock_unset: bool,
}

/// How one epoch stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EpochStatus {
    /// The epoch.
    #[serde(with = "hex")]
    pub epoch: Epoch,
    /// The number after its last durable entry. Numbers begin at 0 and have no gaps.
    pub next: u64,
    /// All numbers below are acknowledged by the bus, or damaged. An epoch that is not being
    /// written and has `retired` = `next` is complete: nothing more comes of it.
    pub retired: u64,
    /// Rejections answered but not kept while it was written; they have no numbers.
    #[serde(default)]
    pub not_kept: u64,
}

/// The numbers `from` up to but not including `to` of an epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DamagedNumbers {
    /// The epoch.
    #[serde(with = "hex")]
    pub epoch: Epoch,
    /// The first number.
    pub from: u64,
    /// The number after the last.
    pub to: u64,
}

/// How often something was rejected and not kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RejectedCount {
    /// The device, as far as it could be read; empty where not.
    pub device: String,
    /// The stable code of the reason.
    pub reason: String,
    /// How often.
    pub count: u64,
}

/// How full the spool is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SpoolStatus {
    /// Bytes on disk.
    pub bytes: u64,
    /// The most it may take.
    pub bytes_max: u64,
    /// Entries that are durable and not acknowledged by the bus.
    pub pending: u64,
    /// When the oldest of them was received, as far as it is known.
    #[serde(default)]
    pub oldest_received_at: Option<UnixMicros>,
}

/// Why a message is no status.
#[derive(Debug, thiserror::Error)]
pub enum StatusError {
    /// No JSON, or a field is missing or of another kind.
    #[error("not a gateway status: {0}")]
    Json(#[from] serde_json::Error),
    /// A format of another version.
    #[error("a gateway status of format {0}; this version reads format {FORMAT}")]
    Format(u32),
    /// More than is read.
    #[error("a gateway status of {bytes} bytes; at most {BYTES_MAX} are read")]
    TooLarge {
        /// Its size.
        bytes: usize,
    },
    /// It contradicts itself.
    #[error("a gateway status that can't be: {0}")]
    Impossible(String),
}

#[derive(Deserialize)]
struct FormatOnly {
    format: u32,
}

impl GatewayStatus {
    /// A status that lists nothing yet.
    pub fn new(gateway: String, sent_at: UnixMicros, epoch: Epoch) -> Self {
        Self {
            format: FORMAT,
            gateway,
            sent_at,
            epoch,
            epochs: Vec::new(),
            epochs_more: 0,
            damaged: Vec::new(),
            damaged_more: 0,
            rejected_not_kept: Vec::new(),
            spool: SpoolStatus::default(),
            clock_unset: false,
        }
    }

    /// The message's value.
    ///
    /// # Errors
    /// Never in practice: every field has a form in JSON.
    pub fn encode(&self) -> Result<Vec<u8>, StatusError> {
        Ok(serde_json::to_vec(self)?)
    }

    /// Reads a message's value.
    ///
    /// # Errors
    /// When it is none, of another version, or contradicts itself.
    pub fn decode(bytes: &[u8]) -> Result<Self, StatusError> {
        if bytes.len() > BYTES_MAX {
            return Err(StatusError::TooLarge { bytes: bytes.len() });
        }
        // First: fields of another version may be of other kinds.
        let FormatOnly { format } = serde_json::from_slice(bytes)?;
        if format != FORMAT {
            return Err(StatusError::Format(format));
        }
        let status: Self = serde_json::from_slice(bytes)?;
        status.check().map_err(StatusError::Impossible)?;
        Ok(status)
    }

    fn check(&self) -> Result<(), String> {
        if self.gateway.is_empty() || self.gateway.len() > 200 {
            return Err(format!("a gateway's name of {} bytes", self.gateway.len()));
        }
        // What is stored as a signed number of 64 bits must fit.
        let fits = |value: u64| i64::try_from(value).is_ok();
        for EpochStatus { epoch, next, retired, not_kept } in &self.epochs {
            if !fits(epoch.0) || !fits(*next) || !fits(*not_kept) {
                return Err(format!("epoch {epoch} has a number beyond 63 bits"));
            }
            if retired > next {
                return Err(format!("epoch {epoch} has retired {retired} of {next} numbers"));
            }
        }
        for DamagedNumbers { epoch, from, to } in &self.damaged {
            if from >= to || !fits(*to) || !fits(epoch.0) {
                return Err(format!("epoch {epoch} has the damaged range {from}..{to}"));
            }
        }
        if !self.epochs.iter().any(|listed| listed.epoch == self.epoch) {
            return Err(format!("its own epoch {} is not listed", self.epoch));
        }
        Ok(())
    }
}

/// An epoch as 16 hexadecimal digits.
mod hex {
    use super::{Deserialize, Deserializer, Epoch, Serializer};

    pub(super) fn serialize<S: Serializer>(epoch: &Epoch, out: S) -> Result<S::Ok, S::Error> {
        out.collect_str(epoch)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Epoch, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(from)?;
        text.parse().map_err(|_| {
            serde::de::Error::custom(format!("{text:?} is no epoch of 16 hexadecimal digits"))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status() -> GatewayStatus {
        let epoch = Epoch(255);
        GatewayStatus {
            epochs: vec![
                EpochStatus { epoch: Epoch(7), next: 100, retired: 100, not_kept: 0 },
                EpochStatus { epoch, next: 42, retired: 40, not_kept: 3 },
            ],
            damaged: vec![DamagedNumbers { epoch: Epoch(7), from: 3, to: 5 }],
            rejected_not_kept: vec![RejectedCount {
                device: "press-1".into(),
                reason: "schema_violation".into(),
                count: 3,
            }],
            spool: SpoolStatus {
                bytes: 4096,
                bytes_max: 1 << 31,
                pending: 2,
                oldest_received_at: Some(UnixMicros(1_700_000_000_000_001)),
            },
            ..GatewayStatus::new("plant-7".into(), UnixMicros(1_700_000_000_000_009), epoch)
        }
    }

    /// The frozen bytes: if this test has to change, the format's version must too.
    #[test]
    fn the_message_is_exactly_this() {
        let text = String::from_utf8(status().encode().unwrap()).unwrap();
        assert_eq!(
            text,
            concat!(
                r#"{"format":1,"gateway":"plant-7","sent_at":1700000000000009,"#,
                r#""epoch":"00000000000000ff","epochs":["#,
                r#"{"epoch":"0000000000000007","next":100,"retired":100,"not_kept":0},"#,
                r#"{"epoch":"00000000000000ff","next":42,"retired":40,"not_kept":3}],"#,
                r#""epochs_more":0,"damaged":[{"epoch":"0000000000000007","from":3,"to":5}],"#,
                r#""damaged_more":0,"rejected_not_kept":[{"device":"press-1","#,
                r#""reason":"schema_violation","count":3}],"spool":{"bytes":4096,"#,
                r#""bytes_max":2147483648,"pending":2,"oldest_received_at":1700000000000001}}"#
            )
        );
        assert_eq!(GatewayStatus::decode(text.as_bytes()).unwrap(), status());
    }

    #[test]
    fn a_clock_that_is_not_set_is_said_and_one_that_is_takes_no_byte() {
        let status = GatewayStatus { clock_unset: true, ..status() };
        let text = String::from_utf8(status.encode().unwrap()).unwrap();
        assert!(text.ends_with(r#","clock_unset":true}"#), "{text}");
        assert_eq!(GatewayStatus::decode(text.as_bytes()).unwrap(), status);
    }

    #[test]
    fn unknown_fields_are_passed_over_and_optional_ones_may_be_absent() {
        let text = r#"{"format":1,"later":{"a":[1]},"gateway":"g","sent_at":5,
            "epoch":"0000000000000001","spool":{"bytes":1,"bytes_max":2,"pending":0,"x":null},
            "epochs":[{"epoch":"0000000000000001","next":9,"retired":8,"more":"x"}]}"#;
        let status = GatewayStatus::decode(text.as_bytes()).unwrap();
        assert_eq!((status.epochs[0].next, status.epochs[0].not_kept), (9, 0));
        assert_eq!(status.damaged, []);
    }

    #[test]
    fn what_is_no_status_is_refused_with_its_reason() {
        let good = String::from_utf8(status().encode().unwrap()).unwrap();
        let cases = [
            (good.replace(r#""format":1"#, r#""format":2"#), "format 2"),
            (good.replace(r#""next":42"#, r#""next":39"#), "retired 40 of 39"),
            (good.replace(r#""from":3"#, r#""from":5"#), "5..5"),
            (good.replace(r#""next":42"#, r#""next":9223372036854775808"#), "63 bits"),
            (good.replace(r#""epoch":"0000000000000007""#, r#""epoch":"z""#), "no epoch"),
            (
                good.replace(r#""epoch":"00000000000000ff","epochs""#, r#""epoch":"1","epochs""#),
                "not listed",
            ),
            (good.replace(r#""gateway":"plant-7""#, r#""gateway":"""#), "name of 0 bytes"),
            (good.replace(r#""retired":40"#, r#""retried":40"#), "missing field `retired`"),
            ("[]".into(), "not a gateway status"),
            (" ".repeat(BYTES_MAX + 1), "at most 1048576"),
        ];
        for (text, expected) in cases {
            let error = GatewayStatus::decode(text.as_bytes()).unwrap_err().to_string();
            assert!(error.contains(expected), "{expected:?} is not in {error:?}");
        }
    }
}
