"""Makes one rendered body valid for Insider's two paths, or says why it can't be.

An upsert's user holds identifiers, attributes, events; an attribute delete's names what to remove
(whole attributes, or single values of lists) and may hold neither attributes nor events. Default
attributes stand beside the identifiers, custom ones below `custom`. A body made for the other path
is refused whole: it would do the contrary of what was meant.

The list of audiences in a body that overwrites is the one thing whose emptiness tells something:
`[]` says "in no audience" and is kept. An entrance whose list is there but
unknown (`[""]`, null) appends its own slug: overwriting with that alone would take the person out
of all other audiences. Other lists of that body are then appended too.

Right before sending, `correct` puts right in a body what newer events have made untrue. What it
says about the list of audiences, and what becomes of it:

- **It overwrites the list.** What something newer entered is in, what something newer exited is
  out, the event's own slug is in or out by its direction. Where that leaves nothing, `[]` is sent:
  whether Insider empties an attribute for it is not documented, but leaving the list out would
  surely leave the exited audience in. (`attribute/delete` is the documented way for exits.)
- **It appends.** What something newer exited is not added again.
- **It removes** (attribute delete). What something newer entered is not removed.
- **It has a boolean attribute for the event's audience.** The ledger has let the event pass, so it
  is the newest of its audience, and the attribute is sent, whatever else is stale.

Profile data that is older than what this template already sent is left out; opt-ins, if any
template did.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from string import ascii_lowercase, ascii_uppercase
from typing import Any, Final
from urllib.parse import urlsplit

from segrelay.worker.contract.events import Header
from segrelay.worker.contract.words import Death, Direction, Skip
from segrelay.worker.core.ledger import Knowledge
from segrelay.worker.destinations import normalise
from segrelay.worker.destinations.api import NotSendable, Shaped, ShapingRules
from segrelay.worker.destinations.normalise import (
    DEFAULT_ATTRIBUTES,
    OBJECT_ATTRIBUTES,
    OPT_INS,
    PHONE,
    TOO_OLD,
    is_empty,
    pruned,
)

_PARTS: Final = frozenset({"whole", "partial"})
_DEFAULT_NAMES: Final = frozenset({*DEFAULT_ATTRIBUTES, PHONE})


def removals(user: dict[str, Any], dropped: list[str]) -> dict[str, Any]:
    """Return `whole`, `partial` and `custom` of a user, as far as they are valid."""
    right = _parts(user, "", dropped, known=_DEFAULT_NAMES)
    custom = user.get("custom")
    if type(custom) is dict:
        if found := _parts(custom, "custom.", dropped, known=None):
            right["custom"] = found
        if not custom.keys() <= _PARTS:
            ignored = sorted(custom.keys() - _PARTS)
            dropped += [f"custom.{name}" for name in ignored if not is_empty(custom[name])]
    elif not is_empty(custom):
        dropped.append("custom")
    return right


def _parts(
    given: dict[str, Any], prefix: str, dropped: list[str], *, known: frozenset[str] | None
) -> dict[str, Any]:
    """Return `whole` and `partial`, with the names that may stand there."""
    names: list[str] = []
    lists: dict[str, list[Any]] = {}
    whole, partial = given.get("whole"), given.get("partial")
    if type(whole) is not list and not is_empty(whole):
        dropped.append(f"{prefix}whole")
    for name in whole if type(whole) is list else ():
        if is_empty(name):
            continue
        if type(name) is str and (known is None or name in known):
            names.append(name)
        else:
            dropped.append(f"{prefix}whole")
    if type(partial) is not dict and not is_empty(partial):
        dropped.append(f"{prefix}partial")
    for name, values in partial.items() if type(partial) is dict else ():
        left = pruned(values)
        if type(left) is dict or (left is not None and known is not None and name not in known):
            dropped.append(f"{prefix}partial.{name}")
        elif left is not None:
            lists[name] = left if type(left) is list else [left]
    right: dict[str, Any] = {"whole": names} if names else {}
    return right | {"partial": lists} if lists else right


MAX_USERS: Final = 1_000

_DELETE_PATH: Final = "/attribute/delete"
_UPSERT_KEYS: Final = frozenset({"attributes", "events"})
TELLING: Final = frozenset({*_UPSERT_KEYS, OBJECT_ATTRIBUTES})
_DELETE_KEYS: Final = frozenset({"whole", "partial", "custom"})
_PERSON_KEYS: Final = frozenset({"identifiers", "insider_id"})
_DELETE_USER_KEYS: Final = _PERSON_KEYS | _DELETE_KEYS
_SWITCHES: Final = ("not_append", "append")
_ROOT_SWITCHES: Final = ("skip_hook", "append")
_URLS: Final = ("https://", "http://")
_NO_ROOT: Final[Mapping[str, Any]] = {}


def shape(body: Any, header: Header, rules: ShapingRules, now_us: int) -> Shaped | NotSendable:
    """Make one rendered body valid, or say why it can't be."""
    wrong = misfit(body, rules.url)
    if wrong:
        return NotSendable(Death.INVALID, wrong)
    given: list[dict[str, Any]] = body["users"]
    if len(given) > MAX_USERS:
        return NotSendable(Death.INVALID, f"the body holds more than {MAX_USERS} users")
    dropped: list[str] = []
    is_delete = deletes(rules.url)
    root = _root(body, dropped, is_delete=is_delete)
    if header.skip_hook and not is_delete:
        root["skip_hook"] = True
    problems: list[NotSendable] = []
    users = []
    for user in given:
        shaped = (
            _delete_user(user, rules, dropped)
            if is_delete
            else _upsert_user(user, header, rules, now_us=now_us, root=root, dropped=dropped)
        )
        if type(shaped) is dict:
            users.append(shaped)
        elif isinstance(shaped, NotSendable):
            problems.append(shaped)
    if not users:
        return _worst(problems)
    dropped += ["users" for problem in problems if problem.reason is Death.INVALID]
    return Shaped(tuple(users), root, tuple(dropped))


def misfit(body: Any, url: str) -> str | None:
    """Say why a body can't be meant for a path, or None if its form fits."""
    if type(body) is str:
        return "the template yields a text; Insider's URL comes from the trigger"
    if type(body) is not dict:
        return f"the body is not an object but {_kind_of(body)}"
    users = body.get("users")
    if type(users) is not list:
        return "the body has no `users`" if users is None else "`users` is not a list"
    is_delete = deletes(url)
    foreign = _UPSERT_KEYS if is_delete else _DELETE_KEYS
    for user in users:
        if type(user) is not dict:
            return f"`users` holds {_kind_of(user)}, not only objects"
        wrong = sorted(key for key in foreign & user.keys() if not is_empty(user[key]))
        if wrong:
            kinds = ("an attribute delete", "an upsert")
            this, other = kinds if is_delete else kinds[::-1]
            named = " and ".join(f"`{key}`" for key in wrong)
            return f"{this} may not hold {named}: this is a body for {other}"
    return None


def _kind_of(value: Any) -> str:
    names = {dict: "an object", list: "a list", str: "a text", bool: "a boolean"}
    return "null" if value is None else names.get(type(value), "a number")


@lru_cache(maxsize=256)
def deletes(url: str) -> bool:
    """Say whether a URL or path is that of the attribute delete."""
    return urlsplit(url).path.rstrip("/").endswith(_DELETE_PATH)


def _worst(problems: Sequence[NotSendable]) -> NotSendable:
    """Return the problem that a person should see: what is wrong before what is merely empty."""
    for problem in problems:
        if problem.reason is Death.INVALID:
            return problem
    return problems[0] if problems else NotSendable(Skip.EMPTY, "the body has no users")


def _root(body: dict[str, Any], dropped: list[str], *, is_delete: bool) -> dict[str, Any]:
    """Return the options beside `users`; an attribute delete has none."""
    root: dict[str, Any] = {}
    for name, value in body.items():
        if name == "users" or is_empty(value):
            continue
        right = None if is_delete else _root_option(name, value)
        if right is None:
            dropped.append(name)
        else:
            root[name] = right
    return root


def _root_option(name: str, value: Any) -> Any:
    if name in _ROOT_SWITCHES:
        return normalise.boolean(value)
    if name == "error_callback_endpoint":
        return value if type(value) is str and value.startswith(_URLS) else None
    return value if name == OBJECT_ATTRIBUTES else None


def _person(user: dict[str, Any], region: str, dropped: list[str]) -> dict[str, Any] | None:
    """Return who the user is: valid identifiers or Insider's own id, or None."""
    person: dict[str, Any] = {}
    insider_id = user.get("insider_id")
    if not is_empty(insider_id):
        if found := normalise.unshared(insider_id):
            person["insider_id"] = found
        else:
            dropped.append("insider_id")
    given = user.get("identifiers")
    if given is not None and (right := normalise.identifiers(given, region, dropped)):
        person["identifiers"] = right
    return person or None


def _upsert_user(
    user: dict[str, Any],
    header: Header,
    rules: ShapingRules,
    *,
    now_us: int,
    root: dict[str, Any],
    dropped: list[str],
) -> dict[str, Any] | NotSendable:
    first = len(dropped)
    region = rules.phone_region
    right = _person(user, region, dropped)
    if right is None:
        return _nobody(dropped[first:])
    for name, value in user.items():
        if name == "attributes":
            if found := normalise.attributes(value, region, dropped):
                right["attributes"] = found
        elif name == "events":
            if header.repair:
                continue
            log = normalise.events(value, time_us=header.time_us, now_us=now_us, dropped=dropped)
            if log:
                right["events"] = log
        elif name in _SWITCHES:
            if (switch := normalise.boolean(value)) is not None:
                right[name] = switch
            elif not is_empty(value):
                dropped.append(name)
        elif name in _PERSON_KEYS or is_empty(value):
            continue
        elif name == OBJECT_ATTRIBUTES:
            right[name] = value
        else:
            dropped.append(name)
    _tell_empty_memberships(right, user, header, rules, root=root, dropped=dropped)
    if not right.keys().isdisjoint(TELLING):
        return right
    return _nothing(dropped[first:])


def _nobody(dropped: Sequence[str]) -> NotSendable:
    wrong = _list_of(filter(_is_personal, dropped))
    return NotSendable(Death.INVALID, "no valid identifier" + (wrong and f" (not valid: {wrong})"))


def _nothing(dropped: Sequence[str]) -> NotSendable:
    wrong = [name for name in dropped if name != TOO_OLD and not _is_personal(name)]
    if wrong:
        return NotSendable(Death.INVALID, f"nothing valid to send; dropped: {_list_of(wrong)}")
    if TOO_OLD in dropped:
        return NotSendable(Skip.TOO_OLD, "only events older than Insider accepts")
    return NotSendable(Skip.EMPTY, "neither attributes nor events")


def _is_personal(name: str) -> bool:
    return name.startswith(("identifiers", "insider_id"))


def _list_of(names: Iterable[str]) -> str:
    return ", ".join(dict.fromkeys(names))


def overwrites(user: Mapping[str, Any], root: Mapping[str, Any] = _NO_ROOT) -> bool:
    """Say whether a user's lists replace those at Insider: `append` wins over `not_append`.

    Whether the request's own `append: true` wins over a user's `not_append` is not documented; here
    it does not, because a list that is made right for overwriting is right for appending too.
    """
    append = user.get("append")
    if append is not None:
        return not append
    return bool(user.get("not_append")) or root.get("append") is False


def _tell_empty_memberships(
    right: dict[str, Any],
    user: dict[str, Any],
    header: Header,
    rules: ShapingRules,
    *,
    root: dict[str, Any],
    dropped: list[str],
) -> None:
    if not overwrites(right, root):
        return
    attribute = rules.audience_attribute
    given = user.get("attributes")
    custom = given.get("custom") if type(given) is dict else None
    if type(custom) is not dict or attribute not in custom or not is_empty(custom[attribute]):
        return
    is_entrance = header.direction is Direction.ENTER
    if custom[attribute] != [] and not is_entrance:
        return
    slugs = [header.audience] if custom[attribute] != [] else []
    right.setdefault("attributes", {}).setdefault("custom", {})[attribute] = slugs
    if slugs:
        for switch in _SWITCHES:
            right.pop(switch, None)
        if root.pop("append", None) is not None:
            dropped.append("append")


def _delete_user(
    user: dict[str, Any], rules: ShapingRules, dropped: list[str]
) -> dict[str, Any] | NotSendable:
    first = len(dropped)
    right = _person(user, rules.phone_region, dropped)
    if right is None:
        return _nobody(dropped[first:])
    found = removals(user, dropped)
    if not user.keys() <= _DELETE_USER_KEYS:
        ignored = sorted(user.keys() - _DELETE_USER_KEYS)
        dropped += [name for name in ignored if not is_empty(user[name])]
    return right | found if found else _nothing(dropped[first:])


STALE_ATTRIBUTES: Final = "stale_attributes"
STALE_OPT_INS: Final = "stale_opt_ins"


def correct(
    shaped: Shaped, header: Header, rules: ShapingRules, knowledge: Knowledge
) -> Shaped | NotSendable:
    """Return a shaped body corrected by newer events. The body given is not changed."""
    given, root, known, url = shaped
    dropped = list(known)
    is_removal = deletes(rules.url)
    left: list[dict[str, Any]] = []
    is_as_given = True
    for user in given:
        right = (
            _corrected_removal(user, header, rules, knowledge)
            if is_removal
            else _corrected(user, root, header, rules, knowledge=knowledge, dropped=dropped)
        )
        is_as_given = is_as_given and right is user
        if right is not None:
            left.append(right)
    if not left:
        return NotSendable(Skip.EMPTY, "nothing was left that is still true")
    options = _without_objects(root, knowledge, dropped)
    if is_as_given and options is root:
        return shaped
    return Shaped(tuple(left), options, tuple(dropped), url)


def _without_objects(
    holder: Mapping[str, Any], knowledge: Knowledge, dropped: list[str]
) -> Mapping[str, Any]:
    """Leave out object attributes, of a user or of the whole body, that newer data has replaced."""
    if not knowledge.stale or OBJECT_ATTRIBUTES not in holder:
        return holder
    dropped.append(STALE_ATTRIBUTES)
    return {name: value for name, value in holder.items() if name != OBJECT_ATTRIBUTES}


def _corrected(
    user: dict[str, Any],
    root: Mapping[str, Any],
    header: Header,
    rules: ShapingRules,
    *,
    knowledge: Knowledge,
    dropped: list[str],
) -> dict[str, Any] | None:
    if OBJECT_ATTRIBUTES in user:
        user = dict(_without_objects(user, knowledge, dropped))
    given = user.get("attributes", {})
    attributes = _fresh(given, header, rules, knowledge, dropped)
    slugs = attributes.get("custom", {}).get(rules.audience_attribute)
    if type(slugs) is list:
        right = _right_list(slugs, header, knowledge, whole=overwrites(user, root))
        if right != slugs:
            attributes = _with(attributes, ("custom", rules.audience_attribute), right)
    if attributes is not given:
        user = _with(user, ("attributes",), attributes)
    return None if user.keys().isdisjoint(TELLING) else user


def _fresh(
    attributes: dict[str, Any],
    header: Header,
    rules: ShapingRules,
    knowledge: Knowledge,
    dropped: list[str],
) -> dict[str, Any]:
    """Leave out the attributes that newer data of the same person has replaced."""
    if knowledge.stale:
        told = memberships_of(attributes, header, rules)
        kept = {"custom": told} if told else {}
        if kept != attributes:
            dropped.append(STALE_ATTRIBUTES)
        return kept
    if knowledge.stale_opt_ins and not attributes.keys().isdisjoint(OPT_INS):
        dropped.append(STALE_OPT_INS)
        return {name: value for name, value in attributes.items() if name not in OPT_INS}
    return attributes


def memberships_of(
    attributes: Mapping[str, Any], header: Header, rules: ShapingRules
) -> dict[str, Any]:
    """Return the custom attributes that tell of audiences, and not of the person."""
    custom = attributes.get("custom", {})
    told = {}
    flag = flag_name(rules.audience_flag_prefix, header.audience)
    if type(custom.get(flag)) is bool:
        told[flag] = custom[flag]
    slugs = custom.get(rules.audience_attribute)
    if slugs is not None:
        told[rules.audience_attribute] = slugs
    return told


def tells_data(user: Any, header: Header, rules: ShapingRules) -> bool:
    """Say whether a user object holds data of the person beside memberships and events."""
    attributes = user.get("attributes") if isinstance(user, dict) else None
    if not isinstance(attributes, dict) or not attributes:
        return False
    custom = attributes.get("custom")
    if len(attributes) > 1 or not isinstance(custom, dict):
        return True
    return custom.keys() != memberships_of(attributes, header, rules).keys()


def _right_list(
    slugs: list[Any], header: Header, knowledge: Knowledge, *, whole: bool
) -> list[Any] | None:
    """Return the list of audiences as it should be sent; None where there is nothing to append."""
    own = {header.audience} if header.direction is Direction.EXIT else set()
    kept = _without(slugs, knowledge.outside | own)
    if not whole:
        return kept or None
    inside = sorted(knowledge.inside)
    if header.direction is Direction.ENTER:
        inside.append(header.audience)
    return kept + [slug for slug in inside if slug not in kept]


def _without(slugs: list[Any], gone: frozenset[str]) -> list[Any]:
    return [slug for slug in slugs if type(slug) is not str or slug not in gone] if gone else slugs


def _with(holder: Mapping[str, Any], path: tuple[str, ...], value: Any) -> dict[str, Any]:
    """Return a copy with a value at a path; None leaves it out, and objects without a field."""
    name, *behind = path
    inner = _with(holder.get(name, {}), tuple(behind), value) if behind else value
    others = {key: each for key, each in holder.items() if key != name}
    return others if inner is None or inner == {} else {**others, name: inner}


def _corrected_removal(
    user: dict[str, Any], header: Header, rules: ShapingRules, knowledge: Knowledge
) -> dict[str, Any] | None:
    path = ("custom", "partial", rules.audience_attribute)
    slugs = user.get("custom", {}).get("partial", {}).get(rules.audience_attribute)
    if slugs is None:
        return user
    still_in = knowledge.inside
    if header.direction is Direction.ENTER:
        still_in = still_in | {header.audience}
    kept = _without(slugs, still_in)
    if len(kept) == len(slugs):
        return user
    changed = _with(user, path, kept or None)
    return None if changed.keys().isdisjoint(_DELETE_KEYS) else changed


_NOT_IN_A_NAME: Final = re.compile(r"[^a-z0-9_]")
_SMALL_LETTERS: Final = str.maketrans(ascii_uppercase, ascii_lowercase)


@lru_cache(maxsize=1_024)
def flag_name(prefix: str, slug: str) -> str:
    """Return the name of an audience's attribute; characters that no name may hold become `_`."""
    return prefix + _NOT_IN_A_NAME.sub("_", slug.translate(_SMALL_LETTERS))
