"""A broker that lets nobody in without a password over TLS, and nobody do what no ACL allows."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import trustme
from confluent_kafka.admin import AdminClient
from confluent_kafka.admin._acl import AclBinding, AclBindingFilter, AclOperation, AclPermissionType
from confluent_kafka.admin._resource import ResourcePatternType, ResourceType
from confluent_kafka.admin._scram import ScramCredentialInfo, ScramMechanism, UserScramCredentialUpsertion
from cryptography.hazmat.primitives import serialization

from infra.devstack.kafka import HOST, free_ports
from tests.brokers import broker
from tests.site import eventually

USER = "worker"


@dataclass(frozen=True)
class Secured:
    """A broker with four listeners: `open` to tests, and three with TLS.

    `secure` wants a password (SCRAM), `mutual` a certificate, and `token` an unsigned token for OAUTHBEARER: a client
    has to send the next token before its last one expires. `ca` signed the broker's certificate, which names 127.0.0.1
    alone; its key and the certificate are in `server`.
    """

    open: str
    secure: str
    mutual: str
    token: str
    ca: Path
    server: Path
    password: str
    admin: AdminClient

    @property
    def properties(self) -> dict[str, str]:
        """What `kafka.properties` has to hold."""
        return {
            "security.protocol": "SASL_SSL",
            "sasl.mechanism": "SCRAM-SHA-512",
            "sasl.username": USER,
            "sasl.password": self.password,
            "ssl.ca.location": str(self.ca),
        }

    def set_password(self, password: str) -> None:
        info = ScramCredentialInfo(ScramMechanism.SCRAM_SHA_512, 4096)
        for done in self.admin.alter_user_scram_credentials(
            [UserScramCredentialUpsertion(USER, info, password.encode())]
        ).values():
            done.result(30)

    def allow_only(self, rights: Iterable[AclBinding]) -> None:
        """Take away each right that the user has, and give it these."""
        anything: Any = None
        every = AclBindingFilter(
            ResourceType.ANY,
            anything,
            ResourcePatternType.ANY,
            anything,
            anything,
            AclOperation.ANY,
            AclPermissionType.ANY,
        )
        for gone in self.admin.delete_acls([every]).values():
            gone.result(30)
        wanted = {*rights}
        for made in self.admin.create_acls([*wanted]).values() if wanted else ():
            made.result(30)
        eventually(lambda: {*self.admin.describe_acls(every).result(30)} == wanted, "the broker knows the rights")


def right(resource: ResourceType, name: str, operation: AclOperation, *, is_prefix: bool = False) -> AclBinding:
    """Return an ACL that allows the user something from anywhere."""
    kind = ResourcePatternType.PREFIXED if is_prefix else ResourcePatternType.LITERAL
    return AclBinding(resource, name, kind, f"User:{USER}", "*", operation, AclPermissionType.ALLOW)


@contextmanager
def secured(folder: Path, password: str) -> Iterator[Secured]:
    """Run the broker; its user has no right yet."""
    ca = trustme.CA()
    ca.cert_pem.write_to_path(folder / "ca.pem")
    _write_key_store(ca.issue_cert(HOST), folder / "server.pem")
    secure, mutual, token = free_ports(3)

    def listeners(port: int, controller_port: int) -> Collection[str]:
        plain = f"PLAINTEXT://{HOST}:{port},"
        others = f"SECURE://{HOST}:{secure},MUTUAL://{HOST}:{mutual},TOKEN://{HOST}:{token}"
        return (
            f"listeners={plain}CONTROLLER://{HOST}:{controller_port},{others}",
            f"advertised.listeners={plain}{others}",
        )

    security = "org.apache.kafka.common.security"
    scram = f"{security}.scram.ScramLoginModule required;"
    oauth = f'{security}.oauthbearer.OAuthBearerLoginModule required unsecuredLoginStringClaim_sub="unused";'
    protocols = "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,SECURE:SASL_SSL,MUTUAL:SSL,TOKEN:SASL_SSL"
    lines = [
        f"listener.security.protocol.map={protocols}",
        "sasl.enabled.mechanisms=SCRAM-SHA-512",
        f"listener.name.secure.scram-sha-512.sasl.jaas.config={scram}",
        "listener.name.token.sasl.enabled.mechanisms=OAUTHBEARER",
        f"listener.name.token.oauthbearer.sasl.jaas.config={oauth}",
        "listener.name.token.oauthbearer.connections.max.reauth.ms=60000",
        "listener.name.mutual.ssl.client.auth=required",
        "authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer",
        "super.users=User:ANONYMOUS",
        "allow.everyone.if.no.acl.found=false",
    ]
    for name in ("secure", "mutual", "token"):
        lines += [
            f"listener.name.{name}.ssl.keystore.type=PEM",
            f"listener.name.{name}.ssl.keystore.location={folder / 'server.pem'}",
            f"listener.name.{name}.ssl.truststore.type=PEM",
            f"listener.name.{name}.ssl.truststore.location={folder / 'ca.pem'}",
        ]
    with broker(*lines, listeners=listeners) as address:
        admin = AdminClient({"bootstrap.servers": address, "log_level": 0})
        made = Secured(
            open=address,
            secure=f"{HOST}:{secure}",
            mutual=f"{HOST}:{mutual}",
            token=f"{HOST}:{token}",
            ca=folder / "ca.pem",
            server=folder / "server.pem",
            password=password,
            admin=admin,
        )
        made.set_password(password)
        yield made


def _write_key_store(certificate: trustme.LeafCert, file: Path) -> None:
    """Write what Java reads: the key as PKCS#8, and the chain."""
    key = serialization.load_pem_private_key(certificate.private_key_pem.bytes(), None)
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    file.write_bytes(pem + b"".join(part.bytes() for part in certificate.cert_chain_pems))
