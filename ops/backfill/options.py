"""The options that `backfill start` and `backfill plan` share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

import typer

from ops.backfill.job_request import WantedJob


@dataclass(frozen=True, slots=True, kw_only=True)
class RowOptions:
    """Options that name the rows and say what they mean."""

    sources: Annotated[
        list[str],
        typer.Argument(metavar="SOURCE…", help="Files, patterns in quotes, -, or lytics:SLUG."),
    ]
    audience: Annotated[
        str, typer.Option(help="Slug of the audience that the people in the rows belong to.")
    ] = ""
    audience_id: Annotated[
        str, typer.Option(help="The id of the audience, for templates that read it.")
    ] = ""
    on: Annotated[
        Literal["enter", "exit"],
        typer.Option(help="Whether the rows entered or left the audience."),
    ] = "enter"
    as_of: Annotated[
        str,
        typer.Option(
            help="When the rows were true: a time; name = as the file's name says, in UTC; "
            "column:NAME = as each row says; file = when the file was last written to, which is "
            "the end of its writing; or now.",
            metavar="TIME",
        ),
    ] = ""
    trigger: Annotated[
        list[str] | None, typer.Option(help="Deliver for these triggers only; repeatable.")
    ] = None
    columns: Annotated[
        str, typer.Option(help="Names for a CSV without a header: email,first_name,…")
    ] = ""
    hooks: Annotated[
        bool, typer.Option("--hooks", help="Let Insider start journeys for these people.")
    ] = False
    again: Annotated[
        bool, typer.Option("--again", help="Also deliver what was delivered before.")
    ] = False

    def wanted(self, *, name: str = "", canary: int = 0) -> WantedJob:
        """Return the job that these options describe."""
        return WantedJob(
            sources=self.sources,
            audience=self.audience,
            audience_id=self.audience_id,
            on=self.on,
            as_of=self.as_of,
            triggers=tuple(self.trigger or ()),
            name=name,
            columns=tuple(each.strip() for each in self.columns.split(",") if each.strip()),
            hooks=self.hooks,
            again=self.again,
            canary=canary,
        )
