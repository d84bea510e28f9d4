"""The `sync` tables: audiences that are compared with their source again and again."""

from __future__ import annotations

from typing import Annotated, Final

from pydantic import Field, field_validator

from worker.contract.settings.sections import Section
from worker.contract.settings.values.fields import Seconds, Switch, Text, between, wrong
from worker.contract.words import AUDIENCE_ID_PATTERN

SOURCE_LYTICS: Final = "lytics"
SOURCE_FILE: Final = "file:"


class SyncSchedule(Section):
    """One audience that is compared with its source again and again."""

    name: str
    audience: Text
    """The audience to compare, as a slug or an id. An id whose slug no payload has told yet is
    looked up at Lytics."""
    audience_id: Text = ""
    """The id of the audience, for templates that read it: rows of a scan or a file have none. Not
    needed if `audience` is the id, or if a payload or `segrelay audience set` has told the id."""
    every_seconds: Annotated[Seconds, between("1s", "30d")] = Field(alias="every")
    """The time from the begin of a run to the begin of the next."""
    repair_every_seconds: Annotated[Seconds, between("1s", "30d")] = Field(
        default=86_400.0, alias="repair_every"
    )
    """Each run repairs where the ledger differs from the source. This is the time after which a
    difference that was repaired and is still there is repaired once more; a file that was read
    already is compared again, too."""
    source: Text = SOURCE_LYTICS
    """`lytics`, or `file:` and a pattern like `file:exports/*.csv`, relative to this file: the
    newest complete one is read, and its time of modification, the end of its writing, is the time
    of its events."""
    on_change: Switch = False
    """`true` also publishes changes of members, for triggers with `on = "change"`."""

    @field_validator("source")
    @classmethod
    def _is_source(cls, source: str) -> str:
        if source == SOURCE_LYTICS or source.removeprefix(SOURCE_FILE) not in {"", source}:
            return source
        raise wrong("is no source", f'write "{SOURCE_LYTICS}" or "{SOURCE_FILE}exports/*.csv"')

    @property
    def told_id(self) -> str:
        """Return the audience's id as far as the configuration names it; "" if it does not."""
        is_id = AUDIENCE_ID_PATTERN.fullmatch(self.audience)
        return self.audience if is_id else self.audience_id

    @property
    def files(self) -> str:
        """Return the pattern of the files that the sync reads; "" if it asks Lytics."""
        return "" if self.source == SOURCE_LYTICS else self.source.removeprefix(SOURCE_FILE)
