"""Protection of people's data in Redis: values are sealed, and digests are made with a secret.

A Redis that is protected has a secret of 32 random bytes, which `{segrelay}:protection` holds
sealed with the configured key. Three keys are derived from it:

- Values (a profile, a dead letter) are sealed by AES-256-GCM with the place where they stand as
  associated data, so that they can't be moved to another person. Each process seals with a key of
  its own, made of a random salt, and counts its nonces: two values never share key and nonce,
  however many there are.
- Names (a profile's key that a script compares, or that is the field of a hash) become tokens. One
  name has one token: the nonce is a digest of the name.
- Digests of profiles' keys can't be made, and so not be looked up in a table, without the secret.

A sealed value: a byte, 4 bytes of the secret's id, 16 of the salt, 8 of the nonce, then the text
and 16 bytes of its tag. The secret stays the same for as long as its Redis holds anything.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import itertools
import os
import secrets
import zlib
from collections.abc import Iterator
from contextlib import suppress
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Final, NamedTuple, Self

import orjson

from segrelay.worker.errors import FormatUnknown, PayloadRefused, RedisMismatch

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

SECRET_BYTES: Final = 32
MARK: Final = b"\xa5"
"""The first byte of a sealed value; neither JSON nor what zlib compresses begins with it."""
_NAME_MARK: Final = "~"
_ID_BYTES: Final = 4
_SALT_BYTES: Final = 16
_COUNTER_BYTES: Final = 8
_NONCE_BYTES: Final = 12
_SALT_AT: Final = len(MARK) + _ID_BYTES
_COUNTER_AT: Final = _SALT_AT + _SALT_BYTES
_TEXT_AT: Final = _COUNTER_AT + _COUNTER_BYTES
_PADDING: Final = bytes(_NONCE_BYTES - _COUNTER_BYTES)
_KEPT_CIPHERS: Final = 4_096


def _cipher(key: bytes) -> AESGCM:
    # Only who protects data pays for the import.
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM  # noqa: PLC0415

    return AESGCM(key)


def _value_cipher(secret: bytes, salt: bytes) -> AESGCM:
    return _cipher(_derived(secret, b"values", salt))


def _derived(secret: bytes, purpose: bytes, salt: bytes = b"", size: int = SECRET_BYTES) -> bytes:
    return hashlib.blake2b(key=secret, salt=salt, person=purpose, digest_size=size).digest()


class _Sealer(NamedTuple):
    """The key of a process with its next nonce. Both change at once: none meets another's nonces.

    Attributes:
        head: The first bytes of each value: the mark, the secret's id and the salt of the key.
        cipher: The cipher with a key that no other process has.
        counter: The next nonce.
    """

    head: bytes
    cipher: AESGCM
    counter: Iterator[int]

    @classmethod
    def begin(cls, secret: bytes) -> Self:
        """Return a sealer with a new key, which is derived from a secret."""
        salt = secrets.token_bytes(_SALT_BYTES)
        return cls(MARK + id_of(secret) + salt, _value_cipher(secret, salt), itertools.count())

    def seal(self, text: bytes, place: bytes) -> bytes:
        counter = next(self.counter).to_bytes(_COUNTER_BYTES)
        return self.head + counter + self.cipher.encrypt(_PADDING + counter, text, place)


class Protection:
    """Seals and unseals people's data; while it is off, everything stays as it is.

    A process has one, because it works with one Redis: `claim` and `compare` switch it on.

    Attributes:
        secret_id: The id of the secret; b"" = it is off.
        digest_key: The key of all digests of people's data; b"" = they have none.
        record: The text in Redis by which it was switched on.
    """

    def __init__(self) -> None:
        self.off()
        if hasattr(os, "register_at_fork"):  # Windows has no fork
            os.register_at_fork(after_in_child=self._begin)

    def off(self) -> None:
        """Switch the protection off: nothing is sealed, and digests are made without a secret."""
        self.secret_id = self.digest_key = self.record = self._secret = b""

    def use(self, secret: bytes, record: bytes) -> None:
        """Seal with a secret from now on; `record` is the text in Redis that it comes from."""
        self.record = record
        if secret == self._secret:
            return
        from cryptography.exceptions import InvalidTag  # noqa: PLC0415 - see `_cipher`

        self._broken = (InvalidTag,)
        self._sealer = _Sealer.begin(secret)
        self._ciphers = lru_cache(_KEPT_CIPHERS)(partial(_value_cipher, secret))
        self._name_key = _derived(secret, b"name nonces")
        self._names = _cipher(_derived(secret, b"names"))
        self.digest_key = _derived(secret, b"digests")
        self.secret_id = id_of(secret)
        self._secret = secret  # last: from here on other threads use the rest

    def _begin(self) -> None:
        """Begin to count with a key of this process' own; a fork must not share its nonces."""
        if self._secret:
            self._sealer = _Sealer.begin(self._secret)

    def __bool__(self) -> bool:
        """Say whether values are sealed."""
        return bool(self._secret)

    def seal(self, text: bytes, place: bytes) -> bytes:
        """Return a text as Redis may hold it; what is sealed already stays as it is.

        Args:
            text: The bytes to seal.
            place: The key or the person that it belongs to; only with the same place it can be
                unsealed.
        """
        if not self._secret or text[:1] == MARK:
            return text
        return self._sealer.seal(text, place)

    def unseal(self, sealed: bytes, place: bytes) -> bytes:
        """Return the text of a sealed value.

        Raises:
            FormatUnknown: It was sealed with the secret of another Redis.
            PayloadRefused: It is damaged, belongs to another place, or is not sealed.
        """
        if not self._secret:
            return sealed
        if sealed[:1] != MARK:
            raise PayloadRefused("unreadable", "A value is not sealed.")
        if sealed[len(MARK) : _SALT_AT] != self.secret_id:
            raise FormatUnknown(
                "A value was sealed with the secret of another Redis, and can't be opened here."
            )
        nonce = _PADDING + sealed[_COUNTER_AT:_TEXT_AT]
        try:
            cipher = self._ciphers(sealed[_SALT_AT:_COUNTER_AT])
            return cipher.decrypt(nonce, sealed[_TEXT_AT:], place)
        except (*self._broken, ValueError) as error:
            raise PayloadRefused("unreadable", "A sealed value is damaged.") from error

    def seal_text(self, text: str, place: bytes) -> str:
        """Return a text as one that may stand in JSON; see `seal`."""
        if not self._secret:
            return text
        return base64.b64encode(self.seal(text.encode(), place)).decode()

    def unseal_text(self, sealed: str, place: bytes) -> str:
        """Return the text that `seal_text` has sealed; see `unseal`."""
        if not self._secret:
            return sealed
        try:
            return self.unseal(base64.b64decode(sealed, validate=True), place).decode()
        except binascii.Error as error:
            raise PayloadRefused("unreadable", "A sealed text is damaged.") from error

    def seal_name(self, name: str) -> str:
        """Return the token of a name, the same each time; "" stays so."""
        if not self._secret or not name:
            return name
        text = name.encode()
        nonce = hashlib.blake2b(text, digest_size=_NONCE_BYTES, key=self._name_key).digest()
        token = nonce + self._names.encrypt(nonce, text, None)
        return _NAME_MARK + base64.urlsafe_b64encode(token).decode()

    def unseal_name(self, token: str) -> str:
        """Return the name of a token.

        Raises:
            PayloadRefused: It is none, or comes from another Redis.
        """
        if not self._secret or not token:
            return token
        try:
            found = base64.urlsafe_b64decode(token.removeprefix(_NAME_MARK))
            return self._names.decrypt(found[:_NONCE_BYTES], found[_NONCE_BYTES:], None).decode()
        except (*self._broken, ValueError) as error:
            raise PayloadRefused("unreadable", "A sealed name is damaged.") from error

    def digest(self, text: bytes, size: int) -> bytes:
        """Return a digest of people's data, which nobody can make without the secret."""
        return hashlib.blake2b(text, digest_size=size, key=self.digest_key).digest()

    def checksum(self, text: bytes) -> int:
        """Return a number of 32 bits, not 0, by which people's data is told apart."""
        found = int.from_bytes(self.digest(text, 4)) if self._secret else zlib.crc32(text)
        return found or 1


PROTECTION: Final = Protection()

RESPONSES: Final = b"responses"
OUTCOMES: Final = b"outcomes"
QUARANTINE: Final = b"quarantine|"
DEAD_LETTERS: Final = b"dead letters|"
"""The places of values that are no one person's; the last two with a record's id behind them."""


def id_of(key: bytes) -> bytes:
    """Return the id of a key or a secret; it tells nothing about it."""
    return _derived(key, b"id", size=_ID_BYTES)


def key_problem(text: str) -> str:
    """Return why a text is no key; "" if it is one."""
    try:
        is_key = len(base64.b64decode(text, validate=True)) == SECRET_BYTES
    except (binascii.Error, ValueError):
        is_key = False
    return "" if is_key else f"is not {SECRET_BYTES} bytes in base64"


class SealedSecret(NamedTuple):
    """The record `{segrelay}:protection`: a Redis' secret, sealed with the configured key.

    Attributes:
        secret_id: The id of the secret, in hexadecimal.
        key_id: The id of the key, in hexadecimal.
        sealed: The secret, sealed.
    """

    secret_id: str
    key_id: str
    sealed: bytes

    @classmethod
    def of(cls, secret: bytes, key: bytes) -> Self:
        """Seal a secret with a key."""
        nonce = secrets.token_bytes(_NONCE_BYTES)
        sealed = nonce + _cipher(key).encrypt(nonce, secret, _SECRET)
        return cls(id_of(secret).hex(), id_of(key).hex(), sealed)

    def dumps(self) -> bytes:
        return orjson.dumps([self.secret_id, self.key_id, base64.b64encode(self.sealed).decode()])

    @classmethod
    def loads(cls, text: bytes) -> Self:
        secret_id, key_id, sealed = orjson.loads(text)
        return cls(secret_id, key_id, base64.b64decode(sealed))

    def opened(self, key: bytes) -> bytes:
        """Return the secret.

        Raises:
            RedisMismatch: The key does not open it.
        """
        from cryptography.exceptions import InvalidTag  # noqa: PLC0415 - see `_cipher`

        with suppress(InvalidTag):
            return _cipher(key).decrypt(
                self.sealed[:_NONCE_BYTES], self.sealed[_NONCE_BYTES:], _SECRET
            )
        raise RedisMismatch(
            f"Redis is protected with the key {self.key_id}, and [protection] key has"
            f" {id_of(key).hex()}: nothing that it holds about people can be read. Set the key with"
            " which this Redis was first used; a new one needs an empty Redis."
        )


_SECRET: Final = b"segrelay protection"
