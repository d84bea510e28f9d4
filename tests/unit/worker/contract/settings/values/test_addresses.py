"""Which addresses are refused, however they are written, and what a destination allows."""

import ipaddress

import pytest

from worker.contract.settings.values.addresses import literal_address, refuse_address_reason

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
        ("127.8.9.1", SELF),
        ("::1", SELF),
        ("::ffff:127.0.0.1", SELF),
        ("0.0.0.0", PRIVATE),  # noqa: S104 - an address to refuse
        ("::", PRIVATE),
        ("10.0.0.1", PRIVATE),
        ("172.16.3.4", PRIVATE),
        ("192.168.1.1", PRIVATE),
        ("100.64.0.1", PRIVATE),
        ("198.18.0.1", PRIVATE),
        ("224.0.0.1", PRIVATE),
        ("255.255.255.255", PRIVATE),
        ("::ffff:10.0.0.1", PRIVATE),
        ("64:ff9b::a00:1", PRIVATE),
        ("2002:a00:1::", PRIVATE),
        ("fd12:3456::1", PRIVATE),
        ("fec0::1", PRIVATE),
        ("ff02::1", PRIVATE),
        ("fe80::1", "a link-local address"),
        ("169.254.169.254", CLOUD),
        ("169.254.1.1", CLOUD),
        ("::ffff:169.254.169.254", CLOUD),
        ("64:ff9b::a9fe:a9fe", CLOUD),
        ("fd00:ec2::254", CLOUD),
        ("100.100.100.200", CLOUD),
        ("168.63.129.16", CLOUD),
    ],
)
def test_only_public_addresses_may_be_connected_to(address, reason):
    assert refuse_address_reason(ipaddress.ip_address(address), ()) == reason


@pytest.mark.parametrize(
    ("address", "networks"),
    [
        ("10.1.2.3", ("10.1.0.0/16",)),
        ("10.1.2.3", ("192.168.0.0/16", "10.1.2.3")),
        ("::ffff:10.1.2.3", ("10.1.0.0/16",)),
        ("127.0.0.1", ("127.0.0.0/8",)),
        ("fd12::1", ("fd12::/16",)),
        ("169.254.169.254", ("169.254.169.254",)),
    ],
)
def test_a_destination_allows_what_it_names(address, networks):
    assert refuse_address_reason(ipaddress.ip_address(address), networks) is None


def test_what_is_allowed_allows_nothing_beside_it():
    networks = ("10.1.0.0/16",)

    assert refuse_address_reason(ipaddress.ip_address("10.2.0.1"), networks) == PRIVATE
    assert refuse_address_reason(ipaddress.ip_address("169.254.169.254"), networks) == CLOUD


@pytest.mark.parametrize(
    ("host", "address"),
    [("10.0.0.1", "10.0.0.1"), ("::1", "::1"), ("fe80::1%eth0", "fe80::1"), ("example.com", None)],
)
def test_an_address_is_told_from_a_name(host, address):
    found = literal_address(host)

    assert (found and str(found)) == address
