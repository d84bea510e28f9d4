"""The twin of `lytemplates.libsonnet` for compiled templates: the same functions in Python.

`tests/conformance/templates` proves that both mean the same.
"""

from __future__ import annotations

import hashlib
from typing import Any, Final

from segrelay.jsonnet.compiled.running.limits import Doubtful
from segrelay.jsonnet.compiled.running.operators import equal
from segrelay.jsonnet.compiled.running.printing import text_of
from segrelay.jsonnet.compiled.running.values import (
    MISSING,
    Func,
    has_field,
    is_object,
    items,
    string,
    take,
)
from segrelay.jsonnet.files import LibraryFunction

Fields = dict[str, Any]
"""A profile or settings."""


def value_of(entry: Any, key: str) -> Any:
    """Return a field of a segment event; null if the field is absent or the event is no object."""
    if is_object(entry) and has_field(key, entry):
        return take(entry[key])
    return None


def trigger(profile: Fields) -> Any:
    """Return the segment event that a profile is about."""
    events = profile.get("segment_events")
    return take(events[0]) if events.__class__ is list and events else None


def looked_up(fields: Fields, field: Any, default: Any) -> Any:
    """Return a field, or a default where it is absent."""
    name = string(take(field))
    if name in fields:
        return take(fields[name])
    return None if default is MISSING else take(default)


def get(profile: Fields, _: Fields, field: Any, default: Any = MISSING) -> Any:
    """`get(field, def=null)`."""
    return looked_up(profile, field, default)


def has(profile: Fields, _: Fields, field: Any, obj: Any = MISSING) -> bool:
    """`has(field, obj)`: whether the profile, or an object, has a field."""
    target = profile if obj is MISSING else take(obj)
    if target.__class__ is Func:
        return string(take(field)) in profile
    return is_object(target) and has_field(take(field), target)


def job_conf_get(_: Fields, settings: Fields, key: Any, default: Any = MISSING) -> Any:
    """`jobConfGet(key, def=null)`."""
    return looked_up(settings, key, default)


def profile_field_from_config(
    profile: Fields, settings: Fields, key: Any, default: Any = MISSING
) -> Any:
    """`profileFieldFromConfig(key, def=null)`."""
    name = string(take(key))
    if name in settings:
        return looked_up(profile, settings[name], MISSING)
    return None if default is MISSING else take(default)


def enum(_: Fields, __: Fields, value: Any, options: Any, default: Any) -> Any:
    """`enum(value, options, default)`."""
    given = take(options)
    if given.__class__ is str:
        return take(value) if string(take(value)) in given else take(default)
    wanted = take(value)
    return wanted if any(equal(each, wanted) for each in items(given)) else take(default)


def validated_enum(profile: Fields, settings: Fields, key: Any, options: Any, default: Any) -> Any:
    """`validatedEnum(key, options, default)`."""
    return enum(profile, settings, looked_up(settings, key, MISSING), options, default)


def not_null(_: Fields, __: Fields, value: Any, default: Any) -> Any:
    """`notNull(val, def)`."""
    given = take(value)
    return take(default) if given is None else given


def in_seg(profile: Fields, _: Fields, ident: Any) -> bool:
    """`inSeg(id)`: by id or slug, in the event or in the profile's lists."""
    wanted = take(ident)
    event = trigger(profile)
    if value_of(event, "event") != "exit" and any(
        equal(value_of(event, key), wanted) for key in ("id", "slug")
    ):
        return True
    lists = (profile.get(name) for name in ("_segments", "segments_all", "segments"))
    return any(
        equal(each, wanted) for found in lists if found.__class__ is list for each in items(found)
    )


def is_enter(profile: Fields, _: Fields) -> bool:
    """`isEnter()`."""
    return bool(value_of(trigger(profile), "event") == "enter")


def is_exit(profile: Fields, _: Fields) -> bool:
    """`isExit()`."""
    return bool(value_of(trigger(profile), "event") == "exit")


def seg_slug(profile: Fields, _: Fields) -> Any:
    """`segSlug()`."""
    return value_of(trigger(profile), "slug")


def seg_event_is_enter(_: Fields, __: Fields, entry: Any) -> bool:
    """`segEvIsEnter(ev)`."""
    return equal(value_of(take(entry), "event"), "enter")


def seg_event_is_exit(_: Fields, __: Fields, entry: Any) -> bool:
    """`segEvIsExit(ev)`."""
    return equal(value_of(take(entry), "event"), "exit")


def slug_for_event(_: Fields, __: Fields, entry: Any) -> Any:
    """`slugForEvent(ev)`."""
    return value_of(take(entry), "slug")


def id_for_event(_: Fields, __: Fields, entry: Any) -> Any:
    """`idForEvent(ev)`."""
    return value_of(take(entry), "id")


def _hashed(text: Any) -> bytes:
    value = take(text)
    if value.__class__ not in (str, int, float, bool):
        raise Doubtful
    return text_of(value).encode()


def sha1(_: Fields, __: Fields, text: Any) -> str:
    """`sha1(x)`."""
    return hashlib.sha1(_hashed(text), usedforsecurity=False).hexdigest()


def sha256(_: Fields, __: Fields, text: Any) -> str:
    """`sha256(x)`."""
    return hashlib.sha256(_hashed(text)).hexdigest()


def _is_hex(text: Any, length: int) -> bool:
    value = take(text)
    return value.__class__ is str and len(value) == length and set(value) <= set("0123456789abcdef")


def is_valid_sha1(_: Fields, __: Fields, text: Any) -> bool:
    """`isValidSha1(x)`."""
    return _is_hex(text, 40)


def is_valid_sha256(_: Fields, __: Fields, text: Any) -> bool:
    """`isValidSha256(x)`."""
    return _is_hex(text, 64)


FUNCTIONS: Final = {
    "get": LibraryFunction(get, ("field", "def"), 1, inline="row"),
    "has": LibraryFunction(has, ("field", "obj"), 1, "bool", "in row"),
    "jobConfGet": LibraryFunction(job_conf_get, ("key", "def"), 1, inline="settings"),
    "profileFieldFromConfig": LibraryFunction(profile_field_from_config, ("key", "def"), 1),
    "validatedEnum": LibraryFunction(validated_enum, ("key", "options", "default"), 3),
    "enum": LibraryFunction(enum, ("value", "options", "default"), 3),
    "notNull": LibraryFunction(not_null, ("val", "def"), 2),
    "inSeg": LibraryFunction(in_seg, ("id",), 1, "bool"),
    "isEnter": LibraryFunction(is_enter, (), 0, "bool"),
    "isExit": LibraryFunction(is_exit, (), 0, "bool"),
    "segSlug": LibraryFunction(seg_slug, (), 0),
    "segEvIsEnter": LibraryFunction(seg_event_is_enter, ("ev",), 1, "bool"),
    "segEvIsExit": LibraryFunction(seg_event_is_exit, ("ev",), 1, "bool"),
    "slugForEvent": LibraryFunction(slug_for_event, ("ev",), 1),
    "idForEvent": LibraryFunction(id_for_event, ("ev",), 1),
    "sha1": LibraryFunction(sha1, ("x",), 1, "string"),
    "sha256": LibraryFunction(sha256, ("x",), 1, "string"),
    "isValidSha1": LibraryFunction(is_valid_sha1, ("x",), 1, "bool"),
    "isValidSha256": LibraryFunction(is_valid_sha256, ("x",), 1, "bool"),
}
"""The functions of the library, by the names that templates call them by."""
