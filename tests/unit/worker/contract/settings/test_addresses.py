"""Which addresses are refused, however they are written, and what a destination allows."""

import ipaddress

import pytest

from segrelay.worker.contract.settings.urls import literal_address, refuse_address_reason

CLOUD = "a link-local address, from which clouds hand out their credentials"
SELF = "this machine itself"
PRIVATE = "a private or reserved address"


@pytest.mark.parametrize(
    ("address", "reason"),
    [
        ("93.184.216.34", None),
        ("2606:2800:220:1:248:1893:25c8:1946", None),
        ("64:ff9b::5db8:d822", None),
        ("127.0.0.1", SELF),
        ("::1", SELF),
        ("::ffff:127.0.0.1", SELF),
        ("10.0.0.1", PRIVATE),
        ("::ffff:10.0.0.1", PRIVATE),
        ("64:ff9b::a00:1", PRIVATE),
        ("2002:a00:1::", PRIVATE),
        ("fd12:3456::1", PRIVATE),
        ("fec0::1", PRIVATE),
        ("fe80::1", "a link-local address"),
        ("169.254.169.254", CLOUD),
        ("::ffff:169.254.169.254", CLOUD),
        ("64:ff9b::a9fe:a9fe", CLOUD),
        ("fd00:ec2::254", CLOUD),
        ("100.100.100.200", CLOUD),
        ("168.63.129.16", CLOUD),
        # An address within another is judged by itself.
        ("::ffff:192.0.0.192", CLOUD),
        ("64:ff9b::c000:c0", CLOUD),
        ("2002:c000:c0::1", CLOUD),
        # A destination allows what it names, and nothing beside it.
        ("10.1.2.3 10.1.0.0/16", None),
        ("10.1.2.3 192.168.0.0/16 10.1.2.3", None),
        ("::ffff:10.1.2.3 10.1.0.0/16", None),
        ("127.0.0.1 127.0.0.0/8", None),
        ("fd12::1 fd12::/16", None),
        ("10.2.0.1 10.1.0.0/16", PRIVATE),
        ("169.254.169.254 10.1.0.0/16", CLOUD),
    ],
)
def test_only_public_addresses_and_allowed_networks_may_be_connected_to(address, reason):
    to, *networks = address.split()

    assert refuse_address_reason(ipaddress.ip_address(to), networks) == reason


REGISTRIES = {
    "192.0.0.0/24": False,
    "192.0.0.9/32": False,
    "192.31.196.0/24": True,
    "192.52.193.0/24": True,
    "192.88.99.0/24": False,
    "192.175.48.0/24": True,
    "224.0.0.0/4": False,
    "64:ff9b:1::/48": False,
    "100:0:0:1::/64": False,
    "2001::/23": False,
    "2620:4f:8000::/48": True,
    "3fff::/20": False,
    "5f00::/16": False,
    "ff00::/8": False,
}
"""What IANA's registries call globally reachable, where some versions of Python say otherwise.

Addresses that stand for one of IPv4 (mapped, translated, 6to4, Teredo) are judged as that one.
"""


@pytest.mark.parametrize(("block", "is_reachable"), REGISTRIES.items())
def test_an_address_is_public_where_the_registries_say_so(block, is_reachable):
    found = ipaddress.ip_network(block)

    for address in (found[0], found[-1]):
        assert (refuse_address_reason(address, ()) is None) == is_reachable, address


@pytest.mark.parametrize(
    ("host", "address"),
    [("10.0.0.1", "10.0.0.1"), ("::1", "::1"), ("fe80::1%eth0", "fe80::1"), ("example.com", None)],
)
def test_an_address_is_told_from_a_name(host, address):
    found = literal_address(host)

    assert (found and str(found)) == address
