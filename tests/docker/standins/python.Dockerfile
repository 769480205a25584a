# For python:3.12-slim-bookworm.
FROM guardline-standin/debian
COPY ca/ /usr/local/share/ca-certificates/
RUN update-ca-certificates && apt-get update \
 && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends python3 python3-venv \
 && rm -rf /var/lib/apt/lists/*
ENV SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt
