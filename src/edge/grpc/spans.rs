//! Calls as OpenTelemetry spans, sent to a collector by OTLP over gRPC.

use std::time::SystemTime;

use opentelemetry::trace::{
    Span, SpanContext, SpanId, SpanKind, Status, TraceContextExt, TraceFlags, TraceId, TraceState,
    Tracer, TracerProvider,
};
use opentelemetry::{Context, KeyValue};
use opentelemetry_otlp::{ExporterBuildError, WithExportConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{Sampler, SdkTracer, SdkTracerProvider};

use super::context::CallContext;

/// Sends the spans of calls.
#[derive(Debug)]
pub struct Spans {
    provider: SdkTracerProvider,
    tracer: SdkTracer,
}

/// What is told of a call that ended.
pub(super) struct EndedCall<'c> {
    pub(super) method: &'c str,
    pub(super) context: &'c CallContext,
    pub(super) started: SystemTime,
    pub(super) code: i32,
    pub(super) code_name: &'static str,
    pub(super) principal: Option<&'c str>,
}

impl Spans {
    /// To a collector, such as `http://127.0.0.1:4317`. Whether a call is told follows the caller's trace; calls without
    /// one are told.
    ///
    /// # Errors
    /// An endpoint that is none.
    pub fn to(endpoint: &str) -> Result<Self, ExporterBuildError> {
        let exporter = opentelemetry_otlp::SpanExporter::builder()
            .with_tonic()
            .with_endpoint(endpoint)
            .build()?;
        let resource = Resource::builder()
            .with_service_name("perfagent")
            .with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")))
            .build();
        let provider = SdkTracerProvider::builder()
            .with_batch_exporter(exporter)
            .with_sampler(Sampler::ParentBased(Box::new(Sampler::AlwaysOn)))
            .with_resource(resource)
            .build();
        let tracer = provider.tracer("perfagent");
        Ok(Self { provider, tracer })
    }

    /// A call that ended now.
    pub(super) fn ended(&self, call: &EndedCall<'_>) {
        let parent = match &call.context.trace {
            None => Context::new(),
            Some(trace) => Context::new().with_remote_span_context(SpanContext::new(
                TraceId::from(trace.trace_id),
                SpanId::from(trace.parent_id),
                if trace.sampled {
                    TraceFlags::SAMPLED
                } else {
                    TraceFlags::default()
                },
                true,
                TraceState::default(),
            )),
        };
        // names as OpenTelemetry's conventions for RPC have them
        let method = call.method.trim_start_matches('/');
        let (service, name) = method.rsplit_once('/').unwrap_or(("", method));
        let mut attributes = vec![
            KeyValue::new("rpc.system", "grpc"),
            KeyValue::new("rpc.service", service.to_owned()),
            KeyValue::new("rpc.method", name.to_owned()),
            KeyValue::new("rpc.grpc.status_code", i64::from(call.code)),
            KeyValue::new("perfagent.request_id", call.context.request_id.clone()),
        ];
        if let Some(principal) = call.principal {
            attributes.push(KeyValue::new("enduser.id", principal.to_owned()));
        }
        let builder = self
            .tracer
            .span_builder(method.to_owned())
            .with_kind(SpanKind::Server)
            .with_start_time(call.started)
            .with_attributes(attributes);
        let mut span = builder.start_with_context(&self.tracer, &parent);
        if call.code != 0 {
            span.set_status(Status::error(call.code_name));
        }
        span.end();
    }
}

impl Drop for Spans {
    /// Sends what is left.
    fn drop(&mut self) {
        if let Err(error) = self.provider.shutdown() {
            tracing::warn!("the last spans could not be sent: {error}");
        }
    }
}
