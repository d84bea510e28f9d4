"""Renaming people at Insider, and making them anonymous; only ever at a person's command.

Deleting a whole profile is not among it, and never will be.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any, Final

from ops.insider.reader import InsiderReader, InsiderUnreadable, RequestClaim, message_of

IDENTITY_PATH: Final = "/api/user/v1/identity"
ANONYMIZE_PATH: Final = "/api/user/v1/anonymize"
RENAMES_A_MINUTE: Final = 1_800
"""Renamings a minute: Insider allows 2,000, by a summary of its documentation."""
ANONYMIZED_A_MINUTE: Final = 450
"""People made anonymous a minute: Insider allows 500, by a summary of its documentation."""

_OK: Final = 200
_NOT_FOUND: Final = 404
_CLIENT_ERRORS: Final = range(400, 500)
_TRIES: Final = 4
_PAUSE_SECONDS: Final = 1.0


class InsiderIdentities(InsiderReader):
    """Client that renames people at Insider or makes them anonymous, at a limited rate.

    To be closed.
    """

    def rename(
        self, old: Mapping[str, Any], new: Mapping[str, Any], claim: RequestClaim | None = None
    ) -> str | None:
        """Rename a person; returns None, or what Insider said to refuse it."""
        body = {"old_identifier": dict(old), "new_identifier": dict(new)}
        return self._done(IDENTITY_PATH, body, "PATCH", claim)

    def anonymize(self, who: Mapping[str, Any]) -> str | None:
        """Make a person anonymous; returns None, or what Insider said to refuse it."""
        return self._done(ANONYMIZE_PATH, {"identifiers": dict(who)}, "POST")

    def is_known(self, who: Mapping[str, Any]) -> bool:
        """Say whether Insider has a profile with this identifier."""
        return self.profile({"identifiers": dict(who)}, ["email"]) is not None

    def _done(
        self, path: str, body: Mapping[str, Any], method: str, claim: RequestClaim | None = None
    ) -> str | None:
        for tries_left in reversed(range(_TRIES)):
            try:
                status, answer = self._ask(path, body, method, claim)
            except InsiderUnreadable:
                if not tries_left:
                    raise
            else:
                if status == _OK:
                    return None
                if status in _CLIENT_ERRORS:
                    return f"{status}: {message_of(answer) or 'without a reason'}"
                if not tries_left:
                    raise self._unreadable(path, status, answer)
            time.sleep(_PAUSE_SECONDS)
        raise AssertionError(path)
