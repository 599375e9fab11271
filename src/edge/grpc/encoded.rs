//! Answers with a measurement, written by the server with the measurement as bytes: on the wire a message and bytes are
//! the same, so it is encoded once and sent to all who ask for it. Clients read them as `pb`.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use prost::Message;

use super::{convert, pb};
use crate::agent::{Answer, Forms, Latest, LatestAnswer};
use crate::measure::Measurement;

/// A message as gRPC sends it: a byte that says "not compressed", its length, itself.
#[derive(Debug, Clone)]
pub(super) struct Framed(Bytes);

/// Bytes before the message.
const PREFIX_BYTES: usize = 5;

impl Framed {
    pub(super) fn of(message: &impl Message) -> Self {
        let bytes = message.encoded_len();
        let mut framed = BytesMut::with_capacity(PREFIX_BYTES + bytes);
        framed.put_u8(0);
        // what is sent fits in `LIMITS.response_bytes`, and is refused before it is sent where not
        framed.put_u32(u32::try_from(bytes).unwrap_or(u32::MAX));
        message.encode_raw(&mut framed);
        Self(framed.freeze())
    }

    /// Made once, and kept among the forms of what it tells of.
    pub(super) fn kept(forms: &Forms, form: usize, make: impl FnOnce() -> Self) -> Self {
        Self(forms.get_or_make(form, || make().0))
    }

    /// Length of the message.
    pub(super) fn message_bytes(&self) -> usize {
        self.0.len() - PREFIX_BYTES
    }

    pub(super) fn into_bytes(self) -> Bytes {
        self.0
    }
}

/// `perfagent.v1.CollectMetricsResponse`
#[derive(Clone, PartialEq, Message)]
pub(crate) struct CollectMetricsResponse {
    /// `perfagent.v1.Measurement`
    #[prost(bytes = "bytes", optional, tag = "1")]
    pub measurement: Option<Bytes>,
    /// See the proto, as for the rest.
    #[prost(bool, tag = "2")]
    pub stale: bool,
    #[allow(missing_docs)]
    #[prost(message, optional, tag = "3")]
    pub last_failure: Option<pb::CollectFailure>,
}

/// `perfagent.v1.BatchCollectMetricsResponse`
#[derive(Clone, PartialEq, Message)]
#[allow(missing_docs)]
pub(crate) struct BatchCollectMetricsResponse {
    #[prost(uint32, tag = "1")]
    pub index: u32,
    #[prost(string, tag = "2")]
    pub instance_id: String,
    /// `perfagent.v1.Measurement`; this or `failure` is set.
    #[prost(bytes = "bytes", optional, tag = "3")]
    pub measurement: Option<Bytes>,
    #[prost(message, optional, tag = "4")]
    pub failure: Option<pb::CollectFailure>,
    #[prost(bool, tag = "5")]
    pub stale: bool,
    #[prost(message, optional, tag = "6")]
    pub last_failure: Option<pb::CollectFailure>,
}

/// `perfagent.v1.WatchMetricsResponse`
#[derive(Clone, PartialEq, Message)]
#[allow(missing_docs)]
pub(crate) struct WatchMetricsResponse {
    #[prost(enumeration = "pb::WatchEvent", tag = "1")]
    pub event: i32,
    #[prost(string, tag = "2")]
    pub instance_id: String,
    #[prost(enumeration = "pb::InstanceState", tag = "3")]
    pub state: i32,
    #[prost(uint64, tag = "4")]
    pub sequence: u64,
    #[prost(uint64, tag = "5")]
    pub missed_windows: u64,
    /// `perfagent.v1.Measurement`
    #[prost(bytes = "bytes", optional, tag = "6")]
    pub measurement: Option<Bytes>,
    #[prost(message, optional, tag = "7")]
    pub failure: Option<pb::CollectFailure>,
    #[prost(message, optional, tag = "8")]
    pub window_end_time: Option<prost_types::Timestamp>,
}

/// How much of a measurement to answer with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum View {
    Full,
    Basic,
}

impl View {
    /// Of a request; a view of a later version is the whole.
    pub(super) fn of(number: i32) -> Self {
        match pb::MeasurementView::try_from(number) {
            Ok(pb::MeasurementView::Basic) => Self::Basic,
            _ => Self::Full,
        }
    }
}

/// A measurement as bytes.
pub(super) fn encode(measurement: &Measurement, view: View) -> Bytes {
    let message = match view {
        View::Full => convert::measurement(measurement),
        View::Basic => convert::basic_measurement(measurement),
    };
    message.encode_to_vec().into()
}

/// The answer that is the last measurement and nothing more, made once.
fn whole(latest: &Latest, view: View) -> Framed {
    Framed::kept(&latest.forms, view as usize, || {
        Framed::of(&CollectMetricsResponse {
            measurement: Some(encode(latest.measurement(), view)),
            stale: false,
            last_failure: None,
        })
    })
}

/// The last measurement as bytes, out of the answer that is nothing more.
pub(super) fn encoded(latest: &Latest, view: View) -> Bytes {
    let mut bytes = whole(latest, view).0;
    bytes.advance(PREFIX_BYTES);
    // cannot fail: it was written above. The key, the length, and to the end the measurement
    let _ = prost::encoding::decode_key(&mut bytes);
    let _ = prost::decode_length_delimiter(&mut bytes);
    bytes
}

/// What came of measuring, to be sent.
pub(super) fn answer(of: &Answer, view: View) -> Framed {
    match of {
        Answer::Latest(LatestAnswer {
            latest,
            stale: false,
            failure: None,
        }) => whole(latest, view),
        other => Framed::of(&parts(other, view)),
    }
}

/// What came of measuring.
pub(super) fn parts(of: &Answer, view: View) -> CollectMetricsResponse {
    match of {
        Answer::Now(measurement) => CollectMetricsResponse {
            measurement: Some(encode(measurement, view)),
            stale: false,
            last_failure: None,
        },
        Answer::Latest(LatestAnswer {
            latest,
            stale,
            failure,
        }) => CollectMetricsResponse {
            measurement: Some(encoded(latest, view)),
            stale: *stale,
            last_failure: failure.as_ref().map(super::status::scrape_failure),
        },
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    /// What the server writes is what clients read.
    #[test]
    fn bytes_and_messages_are_the_same_on_the_wire() {
        let measurement = pb::Measurement {
            instance_id: "a".to_owned(),
            simulated: true,
            ..pb::Measurement::default()
        };
        let failure = pb::CollectFailure {
            code: 14,
            reason: "CONNECT_FAILED".to_owned(),
            ..pb::CollectFailure::default()
        };
        let bytes: Bytes = measurement.encode_to_vec().into();
        let end = prost_types::Timestamp {
            seconds: 7,
            nanos: 0,
        };
        let collect = CollectMetricsResponse {
            measurement: Some(bytes.clone()),
            stale: true,
            last_failure: Some(failure.clone()),
        };
        let batch = BatchCollectMetricsResponse {
            index: 3,
            instance_id: "a".to_owned(),
            measurement: Some(bytes.clone()),
            failure: None,
            stale: true,
            last_failure: Some(failure.clone()),
        };
        let watch = WatchMetricsResponse {
            event: pb::WatchEvent::Window.into(),
            instance_id: "a".to_owned(),
            state: pb::InstanceState::Degraded.into(),
            sequence: 4,
            missed_windows: 5,
            measurement: Some(bytes),
            failure: Some(failure.clone()),
            window_end_time: Some(end),
        };
        let read = pb::CollectMetricsResponse::decode(collect.encode_to_vec().as_slice()).unwrap();
        let expected = pb::CollectMetricsResponse {
            measurement: Some(measurement.clone()),
            stale: true,
            last_failure: Some(failure.clone()),
        };
        assert_eq!(read, expected);
        let read =
            pb::BatchCollectMetricsResponse::decode(batch.encode_to_vec().as_slice()).unwrap();
        let result = pb::batch_collect_metrics_response::Result::Measurement(measurement.clone());
        let expected = pb::BatchCollectMetricsResponse {
            index: 3,
            instance_id: "a".to_owned(),
            result: Some(result),
            stale: true,
            last_failure: Some(failure.clone()),
        };
        assert_eq!(read, expected);
        let read = pb::WatchMetricsResponse::decode(watch.encode_to_vec().as_slice()).unwrap();
        let expected = pb::WatchMetricsResponse {
            event: pb::WatchEvent::Window.into(),
            instance_id: "a".to_owned(),
            state: pb::InstanceState::Degraded.into(),
            sequence: 4,
            missed_windows: 5,
            measurement: Some(measurement),
            failure: Some(failure),
            window_end_time: Some(end),
        };
        assert_eq!(read, expected);
    }
    #[test]
    fn a_framed_message_says_its_length() {
        let message = pb::CollectMetricsRequest {
            instance_id: "x".repeat(300),
            ..pb::CollectMetricsRequest::default()
        };
        let framed = Framed::of(&message);
        assert_eq!(framed.message_bytes(), message.encoded_len());
        let bytes = framed.into_bytes();
        let (prefix, rest) = bytes.split_at(PREFIX_BYTES);
        assert_eq!(prefix, [0, 0, 0, 1, 47]);
        assert_eq!(pb::CollectMetricsRequest::decode(rest).unwrap(), message);
    }
}
