"""Finds people's data in bytes, however it is written there: open, encoded, packed or hashed."""

import base64
import hashlib
import json
import urllib.parse
import zlib
from contextlib import suppress

_ZLIB_BEGINS = (b"\x78\x01", b"\x78\x5e", b"\x78\x9c", b"\x78\xda")
_INFLATED_BYTES = 1 << 20
_DIGEST_BYTES = 8
"""The bytes of a digest that are looked for: a shorter one of the same kind has them in common."""
_HASHES = ("md5", "sha1", "sha224", "sha256", "sha384", "sha512", "sha3_256", "blake2s")
_BLAKE2B_SIZES = (8, 10, 12, 16, 20, 32, 64)


def written_forms(text):
    """Return the ways in which a text may stand in bytes, each with a name."""
    plain = text.encode()
    return {
        "open": plain,
        "hexadecimal": plain.hex().encode(),
        "escaped in JSON": json.dumps(text)[1:-1].encode(),
        "escaped in a URL": urllib.parse.quote(text, safe="").encode(),
        "UTF-16": text.encode("utf-16-le"),
        **{f"base64, {shift} before": _base64(plain, shift) for shift in range(3)},
    }


def _base64(plain, shift):
    """Return what stands in base64 of any text with this one behind so many bytes, modulo 3."""
    encoded = base64.b64encode(bytes(shift) + plain + bytes(-(shift + len(plain)) % 3))
    first = (0, 2, 3)[shift]
    return encoded[first : len(encoded) - 4 if (shift + len(plain)) % 3 else None]


def plain_digests(name):
    """Return the digests of a name that a table of addresses would have, in both notations."""
    plain = name.encode()
    found = {kind: hashlib.new(kind, plain).digest() for kind in _HASHES}
    for size in _BLAKE2B_SIZES:
        found[f"blake2b of {size}"] = hashlib.blake2b(plain, digest_size=size).digest()
    short = {f"{kind} of {name}": digest[:_DIGEST_BYTES] for kind, digest in found.items()}
    return short | {f"{kind}, hex": part.hex().encode() for kind, part in short.items()}


def marks_of(texts, names):
    """Return all that is looked for, by what it is.

    Args:
        texts: What nobody may read.
        names: Of which no digest may be there that anybody can make.
    """
    forms = {
        f"{text!r}, {form}": mark for text in texts for form, mark in written_forms(text).items()
    }
    return forms | {what: mark for name in names for what, mark in plain_digests(name).items()}


def found_in(content, marks):
    """Return which marks stand in bytes, or in something that is packed in them."""
    whole = b"\n".join([content, *_inflated(content)])
    return [what for what, mark in marks.items() if mark in whole]


def _inflated(content):
    for begin in _ZLIB_BEGINS:
        at = content.find(begin)
        while at >= 0:
            with suppress(zlib.error):
                yield zlib.decompressobj().decompress(content[at:], _INFLATED_BYTES)
            at = content.find(begin, at + 1)
