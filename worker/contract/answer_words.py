"""The words of another service's answers that are kept: none is a name or an address.

An answer may quote any person, also one who was not in the request. So its words are compared with
a list of words that are about no one, and with the names of the fields that were sent.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Final

_COMMON: Final = """
a about absent accept accepted access account action active add added address after all allowed
already also an and another any api applied are array as at attribute attributes authentication
authorization bad batch be because been before below between birthday body boolean both bounced
but by can cannot category change changed character characters check city client closed code
column columns complete configuration configured conflict consent contact contacts contain
contains content correct could count country counts create created credentials currency current
custom customer cut data date days decimal deleted denied deprecated detail details did
different digits disabled do does domain down duplicate each either email emails empty enabled
end ended enough entry error errors event events exceed exceeded exceeds exist existing exists
expected expired external fail failed failure failures false few field fields file first for
forbidden form format found from full gender generic given greater group had has have header
hour id identifier identifiers identity if import in inactive incomplete incorrect index
information input inside integer internal into invalid is issue it item items its json key known
language large larger last later least length less limit list lists locale locked lower
malformed many match matches matching maximum member members merge message method minimum
minutes mismatch missing more most must name names needed negative neither new no nobody none
not nothing null number numbers object of ok on once one only operation opted option or order
other others out outside over parameter parameters parse parsed partner password path payload
per permission permitted phone platform please positive present problem processed processing
profile profiles project properties property provided quota range rate reached read reason
received record records reference refused region rejected removed request requests require
required resource result results retry right row rows same schema second seconds segment sent
server service set shape should since size so some sorry space specified status string
subscribed subscriber subscription success successful successfully such supported suppressed
surname suspended syntax system table taken tells template temporarily text than that the their
them then there these they this those time timestamp timezone to token too total true try type
types unauthorized unavailable undefined unexpected unique unknown unprocessable unprocessed
unrecognized unsubscribed unsupported until up update updated updates upper url use used user
users uuid valid validate validation value values verified version was were what when where
which while with within without wrong yet you your zero zone
"""
COMMON: Final = frozenset(_COMMON.split())
"""The words with which services say what is wrong."""

_WORD: Final = re.compile(r"<(?:email|value|id|number)>|\w+")
_STATUS: Final = re.compile(r"[1-5][0-9]{2}(?=: |\Z)")
_PART: Final = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+")
"""A part of a name such as `failedUpdates` or `event_name`."""
_HIDDEN: Final = "…"
_RUN: Final = re.compile(rf"{_HIDDEN}(?:[^\w<>]*{_HIDDEN})+")
_ENDS_A_NAME: Final = b'":'


def with_known_words(text: str, words: Collection[str] = (), sent: bytes = b"") -> str:
    """Return a message of another service with all words hidden that may be about a person.

    Its status stays, and the words that are known, unless they are values of what was sent, and the
    names of fields that were sent.

    Args:
        text: A normalised message.
        words: The destination's own words, in lower case.
        sent: JSON.
    """
    low = sent.lower()
    status = _STATUS.match(text)
    begin = status[0] if status else ""

    def kept(found: re.Match[str]) -> str:
        word = found[0]
        is_name = b'"%b":' % word.lower().encode() in low
        known = word.startswith("<") or is_name or _is_known(word, words)
        return word if known and not _is_value(word, low) else _HIDDEN

    return begin + _RUN.sub(_HIDDEN, _WORD.sub(kept, text[len(begin) :]))


def _is_known(word: str, words: Collection[str]) -> bool:
    parts = [part.lower() for part in _PART.findall(word)]
    is_whole = "".join(parts) == word.replace("_", "").lower()
    return word.lower() in words or (
        is_whole and all(part in COMMON or part in words for part in parts)
    )


def _is_value(word: str, sent: bytes) -> bool:
    """Say whether a word stands in lower-case JSON other than as the name of a field."""
    wanted = word.lower().encode()
    at = sent.find(wanted)
    while at >= 0:
        end = at + len(wanted)
        is_whole = not (_is_in_word(sent[at - 1 : at]) or _is_in_word(sent[end : end + 1]))
        if is_whole and sent[end : end + 2] != _ENDS_A_NAME:
            return True
        at = sent.find(wanted, end)
    return False


def _is_in_word(byte: bytes) -> bool:
    return byte.isalnum() or byte == b"_"
