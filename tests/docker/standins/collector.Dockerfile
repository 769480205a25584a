# For otel/opentelemetry-collector.
FROM guardline-standin/debian
COPY otelcol /otelcol
USER 10001:10001
ENTRYPOINT ["/otelcol"]
