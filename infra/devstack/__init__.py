"""A real Apache Kafka and a real Valkey without Docker, Java or root: for trials, development and the tests.

Never use it in production: one broker, replication factor 1, no authentication, loopback only.
"""

from infra.devstack.errors import DevstackError
from infra.devstack.stack import Addresses, Stack, running

__all__ = ["Addresses", "DevstackError", "Stack", "running"]
