"""Tests that run twice: with people's data open in Redis, and sealed.

A module with `pytestmark = pytest.mark.also_sealed` does; the configurations of its sealed tests
have a key, and the test's own process has the secret from the beginning on. With
`also_sealed(nightly=True)` only the night runs them sealed.
"""

from contextlib import suppress

from segrelay.worker.batch.delivery import unseal_dead_letter
from segrelay.worker.contract.events import read_entry
from segrelay.worker.contract.protection import PROTECTION, SECRET_BYTES, SealedSecret, id_of
from segrelay.worker.errors import PayloadRefused

KEY = f"{'A' * 43}="
_SECRET = bytes(range(SECRET_BYTES))
_RECORD = SealedSecret.of(_SECRET, bytes(SECRET_BYTES)).dumps()


def seal_all():
    """Seal from now on; the first who claims a Redis gives it this secret."""
    PROTECTION.use(_SECRET, _RECORD)


def is_sealed():
    """Say whether this test seals by `seal_all`."""
    return PROTECTION.secret_id == id_of(_SECRET)


def opened(value):
    """Return what Redis keeps with its deliveries and letters open: each sealing is another one."""
    if isinstance(value, dict):
        return {name: _letter(text) for name, text in value.items()}
    if isinstance(value, list) and value and isinstance(value[0][1], dict):
        return [(entry_id, _entry(fields)) for entry_id, fields in value]
    return value


def _entry(fields):
    return fields | {b"p": read_entry(fields)[2]} if b"p" in fields else fields


def _letter(text):
    with suppress(PayloadRefused, ValueError, AttributeError, TypeError):
        return unseal_dead_letter(text)
    return text
