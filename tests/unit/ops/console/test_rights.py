"""Passwords, sessions, tries, and where a request may come from."""

import base64

import pytest

from segrelay.ops.console.rights import Person, Rights, hash_password, is_password
from segrelay.worker.contract.settings.sections import ConsoleSettings
from segrelay.worker.errors import ConfigurationInvalid

PASSWORD = "correct horse battery"
HASH = "scrypt:2:8:1:AAAAAAAAAAAAAAAAAAAAAA==:nKpv7d5Tb1V5y8xZMlwKi/LhzzpiKEg65WZq65yRA40="
ANOTHER = "scrypt:2:8:1:AAAAAAAAAAAAAAAAAAAAAA==:VHMkalHQ3NrbtFN9fQYOnxv10LbXIk9AGJGNAIx5h7Y="
"""Hashes of the password, and of another one, that are cheap to compare."""
OURS = {
    "host": "127.0.0.1:8600",
    "origin": "http://127.0.0.1:8600",
    "sec-fetch-site": "same-origin",
}


def rights(**keys):
    users = {"ann": {"password": HASH, "roles": ["operator"]}, "vic": {"password": HASH}}
    return Rights(ConsoleSettings.model_validate({"users": users} | keys))


def test_a_password_is_known_by_its_hash_alone():
    made = hash_password(PASSWORD)

    assert is_password(PASSWORD, made)
    assert not is_password(PASSWORD + "!", made)
    assert PASSWORD not in made
    assert hash_password(PASSWORD) != made


@pytest.mark.parametrize(
    "text", ["", "correct horse battery", "scrypt:9:8:1:x:y", "scrypt:0:8:1::"]
)
def test_a_password_that_is_no_hash_is_refused_at_the_start(text):
    with pytest.raises(ConfigurationInvalid):
        rights(users={"ann": {"password": text}})


def test_a_session_names_its_person_and_no_role_and_ends_with_its_password():
    ours = rights(secret="a long secret")
    cookie = ours.sign_in("ann", PASSWORD)

    person = ours.person("127.0.0.1", {}, {ours.cookie: cookie})

    assert person == Person("ann", frozenset({"viewer", "operator"}))
    assert b'"ann"' not in base64.urlsafe_b64decode(cookie)
    assert ours.person("127.0.0.1", {}, {ours.cookie: cookie[:-12] + "A" * 12}) is None
    changed = {"ann": {"password": ANOTHER}}
    for other in (rights(secret="another"), rights(secret="a long secret", users=changed)):
        assert other.person("127.0.0.1", {}, {ours.cookie: cookie}) is None


def test_a_wrong_name_or_password_gives_no_session():
    assert rights().sign_in("ann", "wrong") == ""
    assert rights().sign_in("eve", PASSWORD) == ""
    assert rights().sign_in("eve", "") == ""


def test_a_proxy_is_believed_only_at_its_addresses():
    ours = rights(proxy={"addresses": ["10.1.0.0/24"], "roles": ["viewer"]})
    named = {"x-forwarded-user": "ann"}

    assert ours.person("10.1.0.7", named, {}) == Person("ann", frozenset({"viewer", "operator"}))
    assert ours.person("10.1.0.7", {"x-forwarded-user": "eve"}, {}) == Person("eve")
    assert ours.person("10.2.0.7", named, {}) is None
    assert ours.person("10.1.0.7", {}, {}) is None


def test_without_users_everybody_is_a_viewer_and_nobody_acts():
    person = Rights(ConsoleSettings()).person("127.0.0.1", {}, {})

    assert person is not None
    assert not person.acts
    assert not person.reveals


@pytest.mark.parametrize(
    ("changed", "is_ours"),
    [
        ({}, True),
        ({"sec-fetch-site": "cross-site"}, False),
        ({"sec-fetch-site": "same-site"}, False),
        ({"sec-fetch-site": "none"}, False),
        ({"sec-fetch-site": ""}, False),
        ({"origin": "https://evil.example"}, False),
        ({"origin": "null"}, False),
        ({"origin": ""}, False),
    ],
)
def test_acts_come_from_our_own_pages_only(changed, is_ours):
    assert bool(rights().refuse_origin(OURS | changed)) is not is_ours


LINK = {"sec-fetch-mode": "navigate"}
IMAGE = {"sec-fetch-mode": "no-cors"}


@pytest.mark.parametrize(
    ("site", "mode", "query", "is_shown"),
    [
        ("same-origin", IMAGE, ["try"], True),
        ("none", LINK, ["all"], True),
        ("cross-site", LINK, ["page"], True),
        ("same-site", LINK, ["all"], False),
        ("cross-site", LINK, ["try"], False),
        ("cross-site", IMAGE, [], False),
    ],
)
def test_another_site_may_link_to_a_page_and_have_nothing_done(site, mode, query, is_shown):
    assert bool(rights().refuse_link({"sec-fetch-site": site} | mode, query)) is not is_shown


def test_behind_a_proxy_the_public_url_is_the_origin():
    ours = rights(public_url="https://relay.example.com/console")
    own = {**OURS, "host": "relay.example.com", "origin": "https://relay.example.com"}

    assert not ours.refuse_origin(own)
    assert ours.refuse_origin(own | {"origin": "http://relay.example.com"})
    assert ours.prefix == "/console"
    assert ours.is_secure


@pytest.mark.parametrize(
    ("host", "is_ours"),
    [
        ("127.0.0.1:8600", True),
        ("localhost:8600", True),
        ("[::1]:8600", True),
        ("evil.example:8600", False),
        ("127.0.0.1.evil.example", False),
        ("", False),
    ],
)
def test_an_open_console_answers_only_to_this_machines_names(host, is_ours):
    assert Rights(ConsoleSettings()).is_our_host(host) is is_ours


def test_it_is_not_open_to_other_machines():
    assert ConsoleSettings(listen="0.0.0.0:8600").exposed
    assert not ConsoleSettings(listen="[::1]:8600").exposed
    assert not rights(listen="0.0.0.0:8600").section.exposed


@pytest.mark.parametrize(
    ("address", "named", "client"),
    [
        ("10.1.0.7", "203.0.113.5", "203.0.113.5"),
        ("10.1.0.7", "198.51.100.9, 203.0.113.5, 10.1.0.8", "203.0.113.5"),
        ("10.1.0.7", "", "10.1.0.7"),
        ("203.0.113.5", "198.51.100.9", "203.0.113.5"),
    ],
)
def test_a_client_is_the_one_that_the_trusted_proxy_names(address, named, client):
    ours = rights(proxy={"addresses": ["10.1.0.0/24"]})

    assert ours.client(address, {"x-forwarded-for": named}) == client


def test_a_proxy_that_signs_nobody_in_is_believed_no_name():
    ours = rights(secret="a long secret", proxy={"addresses": ["10.1.0.7"], "header": ""})
    cookie = {ours.cookie: ours.sign_in("vic", PASSWORD)}

    assert ours.person("10.1.0.7", {"x-forwarded-user": "ann"}, {}) is None
    assert ours.person("10.1.0.7", {"x-forwarded-user": "ann"}, cookie) == Person("vic")
