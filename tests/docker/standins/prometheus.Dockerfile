# For prom/prometheus.
FROM guardline-standin/python
RUN apt-get update \
 && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends prometheus \
 && rm -rf /var/lib/apt/lists/* && mkdir -p /prometheus && chown 65534:65534 /prometheus
VOLUME /prometheus
USER 65534:65534
ENTRYPOINT ["prometheus"]
