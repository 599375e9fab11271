//! What tells one call from another in logs, traces and the audit log: its id, the trace that it is of, what it is about.

use std::sync::{Arc, OnceLock};

use http::{HeaderMap, HeaderValue};
use uuid::Uuid;

/// Header with the id of a call: taken from the caller, else made here; always answered.
pub(super) const REQUEST_ID: &str = "x-request-id";

/// What tells a call from others.
#[derive(Debug, Clone)]
pub(super) struct CallContext {
    pub(super) request_id: String,
    pub(super) trace: Option<TraceContext>,
    /// What the call is about, noted by its handler.
    pub(super) resource: Resource,
}

/// Where a handler notes what its call is about.
#[derive(Debug, Clone, Default)]
pub(super) struct Resource(pub(super) Arc<OnceLock<String>>);

/// The caller's place in a trace (W3C Trace Context, `traceparent` of version 00).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct TraceContext {
    pub(super) trace_id: u128,
    pub(super) parent_id: u64,
    pub(super) sampled: bool,
}

const MAX_REQUEST_ID_BYTES: usize = 128;
/// Resources are ids; what is no id is not longer than this in a log.
const MAX_RESOURCE_CHARS: usize = 64;

impl CallContext {
    pub(super) fn of(headers: &HeaderMap) -> Self {
        let given = headers.get(REQUEST_ID).and_then(|id| id.to_str().ok());
        // printable by `to_str`; longer ones would only fill logs
        let usable = given.filter(|id| !id.is_empty() && id.len() <= MAX_REQUEST_ID_BYTES);
        Self {
            request_id: usable.map_or_else(|| Uuid::now_v7().to_string(), str::to_owned),
            trace: headers.get("traceparent").and_then(TraceContext::of),
            resource: Resource::default(),
        }
    }

    /// The id as the answer carries it.
    pub(super) fn header(&self) -> Option<HeaderValue> {
        HeaderValue::from_str(&self.request_id).ok()
    }
}

impl Resource {
    pub(super) fn note(&self, id: &str) {
        // the cell is new with each call
        let _ = self.0.set(id.chars().take(MAX_RESOURCE_CHARS).collect());
    }
}

/// Notes what a call is about.
pub(super) fn note_resource<T>(request: &tonic::Request<T>, id: &str) {
    if let Some(resource) = request.extensions().get::<Resource>() {
        resource.note(id);
    }
}

impl TraceContext {
    fn of(header: &HeaderValue) -> Option<Self> {
        let text = header.to_str().ok()?;
        let mut parts = text.split('-');
        let (version, trace, parent, flags) =
            (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
        let lower_hex = |part: &str, length: usize| {
            let hex = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
            part.len() == length && part.bytes().all(hex)
        };
        let shaped = lower_hex(version, 2)
            && version != "ff"
            && lower_hex(trace, 32)
            && lower_hex(parent, 16)
            && lower_hex(flags, 2)
            // later versions may say more, this one may not
            && (version != "00" || parts.next().is_none());
        if !shaped {
            return None;
        }
        let context = Self {
            trace_id: u128::from_str_radix(trace, 16).ok()?,
            parent_id: u64::from_str_radix(parent, 16).ok()?,
            sampled: u8::from_str_radix(flags, 16).ok()? & 1 == 1,
        };
        (context.trace_id != 0 && context.parent_id != 0).then_some(context)
    }

    pub(super) fn trace_id_hex(&self) -> String {
        format!("{:032x}", self.trace_id)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Option<TraceContext> {
        TraceContext::of(&HeaderValue::from_str(text).unwrap())
    }

    #[test]
    fn a_trace_context_is_read_as_w3c_writes_it() {
        let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
        let parent = "00f067aa0ba902b7";
        let read = parsed(&format!("00-{trace}-{parent}-01")).unwrap();
        assert_eq!(read.trace_id_hex(), trace);
        assert_eq!(read.parent_id, 0x00f0_67aa_0ba9_02b7);
        assert!(read.sampled);
        assert!(!parsed(&format!("00-{trace}-{parent}-00")).unwrap().sampled);
        // a later version may say more
        assert!(parsed(&format!("01-{trace}-{parent}-01-more")).is_some());
        let zeros = "0".repeat(32);
        for wrong in [
            String::new(),
            format!("00-{trace}-{parent}"),
            format!("00-{trace}-{parent}-01-more"),
            format!("ff-{trace}-{parent}-01"),
            format!("00-{zeros}-{parent}-01"),
            format!("00-{trace}-{}-01", "0".repeat(16)),
            format!("00-{}-{parent}-01", trace.to_uppercase()),
            format!("00-{trace}-+0f067aa0ba902b7-01"),
        ] {
            assert_eq!(parsed(&wrong), None, "{wrong}");
        }
    }

    #[test]
    fn ids_are_taken_where_they_can_be_and_made_where_not() {
        let with = |id: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(REQUEST_ID, HeaderValue::from_bytes(id.as_bytes()).unwrap());
            CallContext::of(&headers).request_id
        };
        assert_eq!(with("abc"), "abc");
        for unusable in ["", "\u{fc}", &"x".repeat(129)] {
            assert!(Uuid::try_parse(&with(unusable)).is_ok(), "{unusable}");
        }
    }
}
