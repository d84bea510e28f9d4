"""Insider's two paths that change who somebody is: renaming an identifier, and anonymizing."""

from __future__ import annotations

from ops.sandbox.answer import Reply, error, json_answer
from ops.sandbox.insider.api import ArrivedRequest, Insider, object_of
from ops.sandbox.insider.rules import identity_keys


def rename(insider: Insider, call: ArrivedRequest) -> Reply:
    """Give a profile another identifier of the same kind."""
    body = object_of(call.body)
    old, new = (
        identity_keys({"identifiers": body.get(f"{which}_identifier")}) for which in ("old", "new")
    )
    if len(old) != 1 or len(new) != 1 or _kind(old[0]) != _kind(new[0]):
        return error(400, "old_identifier and new_identifier must be of one type: bad request")
    if insider.profiles.find(new) is not None:
        return error(400, "new identifier belongs to another user: bad request")
    if not insider.profiles.rename(old[0], new[0]):
        return error(404, "no such user for these identifiers: no data")
    return json_answer(200, {"success": True})


def anonymize(insider: Insider, call: ArrivedRequest) -> Reply:
    """Remove the identifiers and the default attributes of a profile."""
    if not insider.profiles.anonymize(identity_keys(object_of(call.body))):
        return error(404, "no such user for these identifiers: no data")
    return json_answer(200, {"success": True})


def _kind(key: str) -> str:
    """Return the kind of an identifier `kind:value`; that of a custom one is its name."""
    return key.rpartition(":")[0]
