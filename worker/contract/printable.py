"""Text that may be shown: safe for a terminal, masked where it is of a person, and in plain words.

An answer of another service may quote any person, also one who was not in the request. So its words
are compared with a list of words that are about no one, and with the names of the fields that were
sent.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Collection, Iterable
from itertools import islice
from pathlib import Path
from typing import Any, Final

import orjson

from segrelay.worker.errors import UsageWrong

CONTROLS: Final = re.compile(
    "[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]"
)
"""Characters that a terminal obeys: C0 and C1, marks of direction, line separators."""
LAYOUT: Final = "\n\t"


def printable(text: str, *, keep: str = "") -> str:
    r"""Return a text in which every control character is written as its escape, like `\x1b`.

    Texts of payloads, templates and answers pass through it before a terminal sees them: an
    audience named with an escape sequence could otherwise rewrite the screen. `say`, `mention`,
    `table` and `print_json` of the command line and the workers' log do it by themselves; what is
    printed in another way calls it.
    """
    return CONTROLS.sub(lambda found: found[0] if found[0] in keep else _escape(found[0]), text)


def plural(count: int, one: str, many: str = "") -> str:
    """Return a number with its noun, e.g. `1 event` and `2,000 events`."""
    return f"{count:,} {one if count == 1 else many or f'{one}s'}"


def did_you_mean(word: str, known: Iterable[str], *, or_list: bool = True) -> str:
    """Return a hint with the nearest known word, else with all known words if these are wanted."""
    words = sorted(known)
    longer = [known for known in words if word.startswith(f"{known}_")]
    near = longer or difflib.get_close_matches(word, words, n=1)
    if near:
        return f"did you mean {near[0]!r}?"
    return f"there is {', '.join(words)}" if words and or_list else ""


def json_text(text: bytes) -> str:
    r"""Return a JSON text for a terminal, with control characters escaped, such as `\u009b`."""
    return CONTROLS.sub(
        lambda found: found[0] if found[0] in LAYOUT else f"\\u{ord(found[0]):04x}",
        text.decode(),
    )


def read_json_values(path: Path) -> list[Any]:
    """Return the values of a file: one, an array of them, or one a line.

    Raises:
        UsageWrong: It can't be read, or is not JSON.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UsageWrong(f"{path}: can't be read ({error.strerror}).") from error
    try:
        value = _parsed(path, content)
    except UsageWrong:
        lines = [line for line in content.splitlines() if line.strip()]
        if len(lines) < 2:  # noqa: PLR2004 - of one line the whole was tried
            raise
        return [_parsed(path, line, f"{number}") for number, line in enumerate(lines, 1)]
    return value if isinstance(value, list) else [value]


def _parsed(path: Path, text: bytes, line: str = "") -> Any:
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError as error:
        at = line or f"{error.lineno}:{error.colno}"
        raise UsageWrong(f"{path}:{at}: is not JSON ({error.msg}).") from error


def _escape(character: str) -> str:
    return character.encode("unicode_escape", "surrogatepass").decode()


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
        sent: The body that was sent, as JSON.
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


MASK: Final = "•••"
_SHOWN_ELEMENTS: Final = 20
_SEGMENT_EVENTS: Final = "segment_events"
_NAME: Final = re.compile(r"[A-Za-z0-9_.:-]{1,128}")
_TIME: Final = re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d[\d:.]*(Z|[+-]\d\d:?\d\d)?")
_PUBLIC: Final = {
    "slug": _NAME,
    "id": _NAME,
    "event": re.compile("enter|exit"),
    "enter": _TIME,
    "exit": _TIME,
    "timestamp": _TIME,
    "time": _TIME,
    "type": _NAME,
    "specversion": _NAME,
    "source": re.compile(r"[A-Za-z0-9_.:/-]{1,128}"),
}
"""The fields of a segment event and its envelope that are no personal data as long as their
values match these patterns."""


def masked_payload(payload: Any) -> Any:
    """Return a payload whose profile fields are masked; names, times and audiences stay."""
    if not (isinstance(payload, dict) and isinstance(payload.get("data"), dict)):
        return masked_profile(payload)
    around = {key: value for key, value in payload.items() if key != "data"}
    meta = {"meta": public_only(around["meta"])} if "meta" in around else {}
    return public_only(around) | meta | {"data": masked_profile(payload["data"])}


def masked_profile(profile: Any) -> Any:
    """Return a profile whose fields are masked; its segment event stays."""
    if not isinstance(profile, dict):
        return hidden(profile)
    return {
        key: public_only(value) if key == _SEGMENT_EVENTS else hidden(value)
        for key, value in profile.items()
    }


def public_only(value: Any) -> Any:
    """Mask a value, except names of audiences, directions and times."""
    if isinstance(value, list):
        return [public_only(one) for one in islice(value, _SHOWN_ELEMENTS)]
    if not isinstance(value, dict):
        return hidden(value)
    return {key: one if _is_public(key, one) else hidden(one) for key, one in value.items()}


def _is_public(key: str, value: Any) -> bool:
    shape = _PUBLIC.get(key)
    return shape is not None and isinstance(value, str) and shape.fullmatch(value) is not None


def cut(value: Any, leaf: Callable[[Any], Any] = lambda value: value) -> Any:
    """Shorten lists to the number of elements that is shown of a masked value.

    Args:
        value: A parsed JSON value.
        leaf: A function that replaces each value that is neither a list nor an object.
    """
    if isinstance(value, dict):
        return {key: cut(element, leaf) for key, element in value.items()}
    if isinstance(value, list):
        return [cut(element, leaf) for element in islice(value, _SHOWN_ELEMENTS)]
    return leaf(value)


def hidden(value: Any) -> Any:
    """Mask a value; keys and nesting stay."""
    return cut(value, lambda leaf: MASK if leaf is not None else None)
