"""Addresses that are not public are refused, in every form in which IPv6 can write an IPv4 address."""

from __future__ import annotations

import socket
from ipaddress import ip_address, ip_network

import pytest

from workers.actions.addresses import RefusedAddressError, Sockets, is_permitted


@pytest.mark.parametrize(
    "address",
    [
        "0.0.0.0",
        "10.1.2.3",
        "100.64.0.1",
        "100.100.100.200",
        "127.0.0.1",
        "127.255.255.254",
        "168.63.129.16",
        "169.254.169.254",
        "172.16.0.1",
        "172.31.255.255",
        "192.0.0.192",
        "192.168.1.1",
        "198.18.0.1",
        "224.0.0.1",
        "239.255.255.255",
        "255.255.255.255",
        "::",
        "::1",
        "::127.0.0.1",
        "::ffff:127.0.0.1",
        "::ffff:169.254.169.254",
        "64:ff9b::a9fe:a9fe",
        "64:ff9b:1::1",
        "2002:7f00:1::",
        "2002:a9fe:a9fe::1",
        "2001:0:4136:e378:8000:63bf:5601:5601",
        "2001:db8::1",
        "fc00::1",
        "fd00:ec2::254",
        "fe80::1",
        "fec0::1",
        "ff02::1",
    ],
)
def test_an_internal_address_is_refused(address: str) -> None:
    assert not is_permitted(ip_address(address), [])


@pytest.mark.parametrize(
    "address", ["1.1.1.1", "93.184.215.14", "172.32.0.1", "2606:4700::1111", "::ffff:1.1.1.1", "64:ff9b::101:101"]
)
def test_a_public_address_is_permitted(address: str) -> None:
    assert is_permitted(ip_address(address), [])


def test_a_network_of_the_settings_permits_its_addresses_and_no_others() -> None:
    allowed = [ip_network("10.1.0.0/16"), ip_network("fd00:1::/32")]
    assert [
        is_permitted(ip_address(address), allowed)
        for address in ("10.1.2.3", "::ffff:10.1.2.3", "fd00:1::5", "10.2.0.1", "127.0.0.1", "fd00:2::1")
    ] == [True, True, True, False, False, False]


@pytest.mark.parametrize(
    ("family", "place"),
    [
        (socket.AF_INET, ("127.0.0.1", 80)),
        (socket.AF_INET6, ("::1", 80, 0, 0)),
        (socket.AF_INET6, ("fe80::1%1", 80, 0, 1)),
    ],
)
def test_no_socket_is_made_for_an_internal_address(family: int, place: tuple[object, ...]) -> None:
    with pytest.raises(RefusedAddressError, match="not public"):
        Sockets([])((family, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", place))
