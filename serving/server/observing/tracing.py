"""Tracing: spans of requests, for whoever collects OpenTelemetry's traces.

It needs the extra `tracing`, and is on where the environment says where traces go, by
OpenTelemetry's own variables (`OTEL_EXPORTER_OTLP_ENDPOINT`, `OTEL_SERVICE_NAME`, ...).
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Any

from towers.errors import ConfigError

SERVICE = "fm-recall"
SPAN_KIND = "SERVER"


class Tracing:
    """Begins spans, as parts of the traces that requests name (W3C's `traceparent`)."""

    def __init__(self, provider: Any) -> None:
        """Hand spans to a provider of OpenTelemetry's."""
        self._provider = provider
        self._tracer = provider.get_tracer(SERVICE)
        self._api = import_module("opentelemetry.trace")
        propagation = import_module("opentelemetry.trace.propagation.tracecontext")
        self._context = propagation.TraceContextTextMapPropagator()

    @classmethod
    def to_collector(cls) -> Tracing:
        """Send spans, in the background, to the collector that the environment names.

        Raises:
            ConfigError: the extra is not installed.
        """
        try:
            sdk = import_module("opentelemetry.sdk.trace")
            export = import_module("opentelemetry.sdk.trace.export")
            resources = import_module("opentelemetry.sdk.resources")
            otlp = import_module("opentelemetry.exporter.otlp.proto.http.trace_exporter")
        except ImportError:
            raise ConfigError(
                "traces: expected OpenTelemetry's packages, which are not installed; install the "
                "extra: pip install 'fm-recall[tracing]', or unset OTEL_EXPORTER_OTLP_ENDPOINT"
            ) from None
        own = resources.Resource({"service.name": SERVICE})
        of_environment = resources.OTELResourceDetector().detect()
        provider = sdk.TracerProvider(resource=own.merge(of_environment))
        provider.add_span_processor(export.BatchSpanProcessor(otlp.OTLPSpanExporter()))
        return cls(provider)

    def begin(self, name: str, *, headers: Mapping[str, str]) -> Span:
        """Begin the span of a request."""
        carrier = {key: headers[key] for key in ("traceparent", "tracestate") if key in headers}
        span = self._tracer.start_span(
            name, context=self._context.extract(carrier), kind=self._api.SpanKind[SPAN_KIND]
        )
        return Span(span)

    def close(self) -> None:
        """Send what has not been sent."""
        self._provider.shutdown()


class Span:
    """The span of one request."""

    def __init__(self, span: Any) -> None:
        """Wrap a span of OpenTelemetry's."""
        self._span = span

    def end(self, *, surface: str, status: str, request: str) -> None:
        """End it, and say what became of the request."""
        self._span.set_attribute("fm_recall.surface", surface)
        self._span.set_attribute("fm_recall.status", status)
        self._span.set_attribute("fm_recall.request", request)
        self._span.end()
