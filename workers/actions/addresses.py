"""Refuses addresses that are not public, so that no endpoint can make a worker call the inside of its network.

The check is made on the address to which the socket connects, whatever a name resolved to before: so a name server
cannot pass the check with one address and have the call go to another.
"""

from __future__ import annotations

import socket
from collections.abc import Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Any

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

INTERNAL: tuple[Network, ...] = tuple(
    ip_network(network)
    for network in (
        "0.0.0.0/8",
        "10.0.0.0/8",
        "100.64.0.0/10",
        "127.0.0.0/8",
        "168.63.129.16/32",
        "169.254.0.0/16",
        "172.16.0.0/12",
        "192.0.0.0/24",
        "192.0.2.0/24",
        "192.88.99.0/24",
        "192.168.0.0/16",
        "198.18.0.0/15",
        "198.51.100.0/24",
        "203.0.113.0/24",
        "224.0.0.0/3",
        "::/16",
        "64:ff9b:1::/48",
        "100::/64",
        "2001::/23",
        "2001:db8::/32",
        "3fff::/20",
        "5f00::/16",
        "fc00::/7",
        "fe80::/9",
        "ff00::/8",
    )
)
"""What the registries of IANA for special purposes say is not public, multicast, and two addresses of clouds' metadata
that would be public by them: 168.63.129.16 of Azure, and 192.0.0.192 of Oracle within 192.0.0.0/24. The metadata
services of AWS, Google and Alibaba are link-local, unique local (fd00:ec2::254) or shared (100.100.100.200)."""

NAT64 = ip_network("64:ff9b::/96")
"""A network with IPv6 only reaches IPv4 by these addresses, whose last 32 bits are the IPv4 address."""


class RefusedAddressError(OSError):
    """An endpoint's name resolves to an address to which it may not lead."""


def is_permitted(address: Address, allowed: Sequence[Network]) -> bool:
    """Say whether a call may go to an address: it is public, or in one of the networks that the settings allow.

    An IPv6 address that stands for an IPv4 one is treated as that.
    """
    address = _plain(address)
    if any(address in network for network in allowed):
        return True
    return not any(address in network for network in INTERNAL)


def _plain(address: Address) -> Address:
    if isinstance(address, IPv4Address):
        return address
    if address in NAT64:
        return IPv4Address(int(address) & 0xFFFFFFFF)
    teredo = address.teredo
    return address.ipv4_mapped or address.sixtofour or (teredo[1] if teredo else None) or address


class Sockets:
    """Makes the sockets of one endpoint's calls, for aiohttp's `socket_factory`."""

    def __init__(self, allow_networks: Sequence[str]) -> None:
        self._allowed = [ip_network(network) for network in allow_networks]

    def __call__(self, where: tuple[Any, ...]) -> socket.socket:
        """Return a socket for an address, as `socket.getaddrinfo` gives it.

        Raises:
            RefusedAddressError: the address is not permitted.
        """
        family, kind, protocol, _, place = where
        address = ip_address(str(place[0]).partition("%")[0])
        if not is_permitted(address, self._allowed):
            raise RefusedAddressError(
                "its name resolves to an address that is not public; if that is intended, name the network in "
                "allow_networks"
            )
        made = socket.socket(family, kind, protocol)
        made.setblocking(False)
        return made
