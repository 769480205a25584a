# KAFKA_A_B=x is the property a.b=x; two underscores are one, three are a hyphen: as in apache/kafka.
set -ef
properties=/tmp/server.properties
env | sed -n 's/^KAFKA_//p' | while IFS= read -r line; do
  name=$(printf '%s' "${line%%=*}" | tr '[:upper:]' '[:lower:]' | sed 's/___/-/g; s/__/\x01/g; s/_/./g; s/\x01/_/g')
  printf '%s=%s\n' "$name" "${line#*=}"
done > "$properties"
java="/opt/java/bin/java -Xmx512m -XX:TieredStopAtLevel=1 -Djava.net.preferIPv4Stack=true -Dlog4j2.level=WARN -cp /opt/kafka/libs/*"
$java kafka.tools.StorageTool format --ignore-formatted -t "${CLUSTER_ID:-g5L6g3nShTeMCtKX86swQQ}" -c "$properties"
exec $java kafka.Kafka "$properties"
