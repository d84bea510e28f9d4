"""What seals people's data in Redis, and what opens it again."""

import itertools
import os
import re
import sys

import pytest

from segrelay.worker.contract.events import (
    UNKNOWN_FORMAT,
    Event,
    encode_header,
    header_of,
    read_entry,
)
from segrelay.worker.contract.keys import digest_of
from segrelay.worker.contract.protection import (
    PROTECTION,
    Protection,
    SealedSecret,
    id_of,
    key_problem,
)
from segrelay.worker.contract.words import Direction
from segrelay.worker.errors import PayloadRefused, RedisMismatch

SECRET, OTHER = bytes(32), bytes(31) + b"1"
_BEFORE_TEXT = 1 + 4 + 16 + 8
"""Mark, id of the secret, salt and nonce."""
NAME = "email:ann@example.com"
ANN, BOB = b"digest of Ann", b"digest of Bob"


@pytest.fixture
def protection():
    made = Protection()
    made.use(SECRET, b"a record")
    return made


@pytest.fixture
def _on():
    PROTECTION.use(SECRET, b"a record")


def test_a_sealed_value_opens_where_it_stands_and_nowhere_else(protection):
    sealed = protection.seal(b"Quetzalina", ANN)

    assert b"Quetzalina" not in sealed
    assert protection.unseal(sealed, ANN) == b"Quetzalina"
    with pytest.raises(PayloadRefused, match="damaged"):
        protection.unseal(sealed, BOB)


@pytest.mark.parametrize("at", [6, 25, 40, -1])
def test_a_sealed_value_that_was_changed_does_not_open(protection, at):
    changed = bytearray(protection.seal(b"Quetzalina", ANN))
    changed[at] ^= 1

    with pytest.raises(PayloadRefused, match="damaged"):
        protection.unseal(bytes(changed), ANN)


def test_no_two_values_share_key_and_nonce_also_behind_a_fork(protection):
    begins = {protection.seal(b"x", ANN)[:29] for _ in range(100)}
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        os.write(writer, protection.seal(b"x", ANN)[:29])
        os._exit(0)
    os.waitpid(child, 0)
    theirs = os.read(reader, 29)

    assert len(begins) == 100
    assert theirs[5:21] not in {begin[5:21] for begin in begins}


def sealed_with_a_change_before(line):
    """Seal while the secret changes before a line, and say whether there is such a line."""
    changing, lines = Protection(), itertools.count()
    changing.use(SECRET, b"")
    changing.seal(b"before", ANN)

    def traced(frame, event, _):
        if frame.f_code.co_name == "seal" and event == "line" and next(lines) == line:
            changing.use(OTHER, b"")
        return traced

    before = sys.gettrace()
    sys.settrace(traced)
    try:
        return [changing.seal(b"x", ANN) for _ in range(4)], next(lines) > line
    finally:
        sys.settrace(before)


def test_who_seals_while_the_secret_changes_mixes_no_key_with_anothers_nonces():
    """Another thread finds that Redis came back empty, and has another secret."""
    opening = {id_of(secret): Protection() for secret in (SECRET, OTHER)}
    for secret in (SECRET, OTHER):
        opening[id_of(secret)].use(secret, b"")

    for line in itertools.count():
        sealed, is_reached = sealed_with_a_change_before(line)
        assert len({one[:_BEFORE_TEXT] for one in sealed}) == len(sealed)
        assert [opening[one[1:5]].unseal(one, ANN) for one in sealed] == [b"x"] * 4
        if not is_reached:
            break
    assert line > 3


def test_what_one_process_has_sealed_another_one_opens(protection):
    other = Protection()
    other.use(SECRET, b"a record")

    assert other.unseal(protection.seal(b"Quetzalina", ANN), ANN) == b"Quetzalina"
    assert other.unseal_name(protection.seal_name(NAME)) == NAME
    assert other.unseal_text(protection.seal_text("Quetzalina", ANN), ANN) == "Quetzalina"


def test_a_name_has_one_token_that_lua_can_take_apart_from_others(protection):
    token = protection.seal_name(NAME)

    assert token == protection.seal_name(NAME)
    assert re.fullmatch(r"~[A-Za-z0-9_=-]+", token)
    assert protection.seal_name("") == ""
    with pytest.raises(PayloadRefused):
        protection.unseal_name(token[:-6] + "AAAAAA")


def test_while_it_is_off_everything_stays_as_it_is():
    off = Protection()

    assert not off
    assert off.seal(b"x", ANN) == b"x" == off.unseal(b"x", ANN)
    assert off.seal_name(NAME) == NAME == off.unseal_name(NAME)
    assert off.seal_text("x", ANN) == "x" == off.unseal_text("x", ANN)


@pytest.mark.usefixtures("_on")
def test_digests_of_people_depend_on_the_secret():
    keyed = digest_of(NAME)
    PROTECTION.use(OTHER, b"another record")
    other = digest_of(NAME)
    PROTECTION.off()

    assert len({keyed, other, digest_of(NAME)}) == 3


@pytest.mark.usefixtures("_on")
def test_an_entry_is_opened_and_a_foreign_one_waits():
    event = Event(NAME, "vip", Direction.ENTER, 1, {"email": "ann@example.com"})
    header = header_of(event, accepted_ms=1)
    foreign = Protection()
    foreign.use(OTHER, b"another record")

    def read(profile):
        return read_entry({b"h": encode_header(header), b"p": profile})[1:]

    assert read(PROTECTION.seal(b"{}", header.digest)) == (header, b"{}")
    strange = foreign.seal(b"{}", header.digest)
    assert read(strange) == (UNKNOWN_FORMAT, strange)
    for damaged in (PROTECTION.seal(b"{}", BOB), b"{}"):
        assert read(damaged) == (header._replace(damaged=True), damaged)
    assert read_entry({b"h": b"no header", b"p": strange})[1].is_broken


def test_a_secret_opens_with_its_key_and_no_other():
    key, other = os.urandom(32), os.urandom(32)
    record = SealedSecret.loads(SealedSecret.of(SECRET, key).dumps())

    assert record.opened(key) == SECRET
    assert SECRET not in record.dumps()
    with pytest.raises(RedisMismatch, match=id_of(other).hex()):
        record.opened(other)


@pytest.mark.parametrize("text", ["", "a password", "A" * 43, "A" * 44, "AAAA", "é" * 44])
def test_a_text_that_is_no_key_is_refused(text):
    assert "32 bytes" in key_problem(text)
