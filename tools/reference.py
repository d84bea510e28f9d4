"""The pages of `docs/` that are made from the code: `python -m tools.reference` writes them."""

from __future__ import annotations

import ast
import inspect
import json
import re
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Final, Literal, get_args, get_origin

import pycountry
import typer
from babel import Locale
from babel.core import get_global
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from segrelay.ops.main import app
from segrelay.templates.reference import library_page
from segrelay.worker.contract.settings import Settings
from segrelay.worker.contract.settings import values as kinds
from segrelay.worker.contract.settings.http import ReadableFile, TargetUrl, TextOrTemplate
from segrelay.worker.contract.settings.values import format_duration

_WIDTH: Final = 78
_OPENING: Final = """\
# Commands

This page is written by `make docs` from the command line itself: it shows what
`segrelay COMMAND --help` prints.

Commands that report facts take `--json`: standard output is then exactly one JSON document, and
messages go to standard error. Exit codes: 0 for success, 1 for failed work, 2 for wrong usage or
configuration, 130 after Ctrl-C. `status --check` also uses 3, if Redis can't be reached. A result
that can't be written, because standard output is closed or full, is failed work. A character that
the output's encoding lacks is written as an escape, such as `\\u03a9`; JSON stays JSON.
"""


def commands_page() -> str:
    """Return the text of `docs/commands.md`."""
    root = typer.main.get_command(app)
    settings = {**root.context_settings, "info_name": "segrelay", "terminal_width": _WIDTH}
    context = root.context_class(root, **settings)
    return "\n".join((_OPENING, *_parts(root, context, depth=1)))


def _parts(command: Any, context: Any, depth: int) -> Iterator[str]:
    """Yield a section for a command and for each of its subcommands."""
    yield f"{'#' * (depth + 1)} `{context.command_path}`\n\n```\n{command.get_help(context)}\n```\n"
    for name in command.list_commands(context) if hasattr(command, "list_commands") else ():
        inner = command.get_command(context, name)
        below = type(context)(inner, parent=context, info_name=name, terminal_width=_WIDTH)
        yield from _parts(inner, below, depth + 1)


FOLDER: Final = Path(__file__).parents[1] / "docs"


def pages() -> Mapping[str, str]:
    """Return the texts of all pages by file name."""
    return {
        "configuration.md": configuration_page(),
        "commands.md": commands_page(),
        "library.md": library_page(),
        "../worker/destinations/regions.json": regions(),
        "../ops/config/scaffold/docker-compose.yml": compose_file(),
    }


_COMPOSE: Final = """\
# Redis, a worker and the receiver of Lytics' webhooks, from this folder: docker compose up
# With `--profile console` also the console, with `--profile flower` Flower, once segrelay.toml has
# [console.users] or [flower]. `.env`, a copy of .env.example, has to set SEGRELAY_REDIS_PASSWORD
# and SEGRELAY_WEBHOOK_SECRET. What else it can set:
#
#   SEGRELAY_IMAGE              segrelay; the image's name in your registry
#   SEGRELAY_SOURCE             the folder of segrelay's source, from which the image is built where
#                               there is none yet
"""
_ONLY_IN_THE_REPOSITORY: Final = ("metrics", "prometheus", "grafana", "secrets", "monitoring")


def compose_file() -> str:
    """Return the compose file of a folder of one's own: the repository's, built elsewhere.

    Monitoring is left out, because it mounts files of the repository. The receiver always runs.
    """
    text = (FOLDER.parent / "docker-compose.yml").read_text("utf-8")
    begin, end = text.index("#   SEGRELAY_VERSION"), text.index("#\n# The worker reads .env")
    variables, rest = text[begin:end], text[text.index("name: segrelay\n") :]
    for name in _ONLY_IN_THE_REPOSITORY:
        rest = re.sub(rf"(?m)^( *){name}:.*\n(?:\1 +.*\n|\n(?=\1 ))*", "", rest)
    for old, new in (
        ("    context: .\n", "    context: ${SEGRELAY_SOURCE:-/path/to/segrelay}\n"),
        ("image: segrelay:", "image: ${SEGRELAY_IMAGE:-segrelay}:"),
        ('    profiles: ["receiver"]\n', ""),
        ("; Prometheus and Grafana don't see it", ""),
        ("${SEGRELAY_WEBHOOK_SECRET:-}", "${SEGRELAY_WEBHOOK_SECRET:?set it in .env}"),
    ):
        if rest.count(old) != 1:
            raise ValueError(f"docker-compose.yml has {old!r} {rest.count(old)} times.")
        rest = rest.replace(old, new)
    return _COMPOSE + variables + re.sub(r"\n{3,}", "\n\n", rest)


def regions() -> str:
    """Return what is known of countries and languages, as JSON with a line for each of them.

    The facts are those of ISO 3166 and 639 in `pycountry` and of CLDR in `babel`, in English.
    """
    countries, languages = list(pycountry.countries), list(pycountry.languages)
    common = Locale("en").territories
    tables: Mapping[str, Mapping[str, Any]] = {
        "countries": {
            country.alpha_2: [*_texts(country, _COUNTRY), common[country.alpha_2]]
            for country in countries
        },
        "languages": {
            language.alpha_2: _texts(language, _LANGUAGE)
            for language in languages
            if getattr(language, "alpha_2", None)
        },
    }
    likely = {
        spoken: full.rsplit("_", 1)[-1]
        for spoken, full in get_global("likely_subtags").items()
        if spoken.partition("_")[0] in tables["languages"] and _SPOKEN.fullmatch(spoken)
    }
    return _by_lines({**tables, "likely": likely})


def _texts(found: Any, names: Sequence[str]) -> list[str]:
    texts = (getattr(found, name, None) for name in names)
    return [text for text in dict.fromkeys(texts) if text]


def _by_lines(tables: Mapping[str, Mapping[str, Any]]) -> str:
    written = (
        f'"{name}": {{\n'
        + ",\n".join(
            f"  {json.dumps(key)}: {json.dumps(rows[key], ensure_ascii=False)}"
            for key in sorted(rows)
        )
        + "\n}"
        for name, rows in tables.items()
    )
    return "{\n" + ",\n".join(written) + "\n}\n"


_COUNTRY: Final = ("alpha_2", "alpha_3", "numeric", "flag", "name", "official_name", "common_name")
_LANGUAGE: Final = ("alpha_2", "alpha_3", "bibliographic", "name")
_SPOKEN: Final = re.compile("[a-z]+(_[A-Z][a-z]{3})?")
_KINDS: Final[Mapping[Any, str]] = {
    kinds.TemplateName: "path",
    kinds.OptionalTemplate: "path",
    ReadableFile: "path",
    TextOrTemplate: "text or template",
    kinds.BaseUrl: "URL",
    kinds.Listen: "address",
    kinds.RedisUrl: "URL",
    kinds.SecretValue: "secret",
    kinds.Seconds: "duration",
    kinds.PerMinute: "rate",
    kinds.JsonTable: "table",
    kinds.Whole: "whole number",
    kinds.Switch: "true or false",
}
"""Words for the types of settings. The first match counts, so exact types come first: a
`TemplateName` is a text, too."""
_PLAIN: Final[Mapping[Any, str]] = {
    str: "text",
    Path: "path",
    TargetUrl: "URL, secret or template",
    Any: "value",
}
_CONFIGURATION: Final = """\
# Configuration

This page is written by `make docs` from the settings classes. The commented example is
[segrelay.toml](../segrelay.toml), and `segrelay init` writes one.

The configuration is one TOML file, `segrelay.toml` in the current folder. It is validated as a
whole when a command starts: first each value, then what the tables say of each other; every problem
is listed with its place and a hint. A key that is not listed here is an error. After a change,
restart workers and receiver, which loses nothing; `segrelay status` names those with an older file.

- A **secret** is written as `env:NAME` or `file:PATH`. A `.env` file beside the configuration is
  read too. Secrets are never printed.
- A **duration** is text such as `"500ms"`, `"10s"`, `"15m"`, `"1h30m"` or `"90d"`.
- Names in the place of `NAME` are made of `a-z`, `0-9` and `-`.
- Every table may also have a `description`, which is a note for people.

Outside of all tables, `templates` (default `"templates"`) names the folder of the templates,
relative to the file. The shipped library can be imported from every template.

These variables of the environment have a meaning:

| variable | meaning |
| --- | --- |
| `SEGRELAY_CONFIG` | the configuration file, in the place of `./segrelay.toml` |
| `SEGRELAY_REDIS_URL`, `SEGRELAY_BROKER_URL` | in the place of `redis.url` and `redis.broker_url` |
| `SEGRELAY_SANDBOX` | `1`, or a sandbox's URL: everything goes to the sandbox; `0`: like `--real` |
| `SEGRELAY_LOG_FORMAT` | `json` or `text`, like `--log-format` |
| `SEGRELAY_ACTOR` | who acts, for `segrelay audit`; else user and host |
| `SEGRELAY_DEBUG` | `1`: an unexpected error is shown with its traceback |
| `NO_COLOR` | set to anything: output without colours |
"""


def configuration_page() -> str:
    """Return the text of `docs/configuration.md`."""
    return "\n".join((_CONFIGURATION, *_tables(Settings, "")))


def _tables(owner: type[BaseModel], above: str) -> Iterator[str]:
    """Yield a section for each table of a settings class, and for the tables within it."""
    for name, field in owner.model_fields.items():
        section, is_named = _section_of(field.annotation)
        if section is None:
            continue
        header = f"{above}{name}" + (".NAME" if is_named else "")
        rows = [*_rows(section)]
        if rows:
            yield _table(header, section, rows)
        yield from _tables(section, f"{header}.")


def _table(header: str, section: type[BaseModel], rows: list[str]) -> str:
    about = inspect.cleandoc(section.__doc__ or "")
    head = "| key | kind | default | meaning |\n| --- | --- | --- | --- |"
    return "\n".join((f"## `[{header}]`\n\n{about}\n", head, *rows, ""))


def _section_of(annotation: Any) -> tuple[type[BaseModel] | None, bool]:
    """Return the class of a table, and whether it stands for several tables with names."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation, False
    for inner in get_args(annotation):
        found, _ = _section_of(inner)
        if found:
            return found, get_origin(annotation) is Mapping
    return None, False


def _rows(section: type[BaseModel]) -> Iterator[str]:
    scopes = _scopes(section)
    for name, field in section.model_fields.items():
        is_header = name == "name" and name not in scopes  # of a table [….NAME]
        if is_header or name == "description" or _section_of(field.annotation)[0]:
            continue
        key, kind = field.alias or name, _kind(field.annotation, field.metadata)
        limits = "".join(_limits(field))
        yield f"| `{key}` | {kind}{limits} | {_default(field, kind)} | {scopes[name]} |"


def _scopes(section: type[BaseModel]) -> dict[str, str]:
    """Return the docstring of each key of a class and of its base classes."""
    found: dict[str, str] = {}
    for owner in reversed(section.__mro__[: section.__mro__.index(BaseModel)]):
        body = ast.parse(textwrap.dedent(inspect.getsource(owner))).body[0]
        assert isinstance(body, ast.ClassDef)
        for line, below in zip(body.body, body.body[1:], strict=False):
            match line, below:
                case (
                    ast.AnnAssign(target=ast.Name(id=name)),
                    ast.Expr(value=ast.Constant(value=str() as scope)),
                ):
                    found[name] = " ".join(scope.split())
    return found


def _kind(annotation: Any, metadata: list[Any]) -> str:
    """Return the word that the page uses for the type of a value."""
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _kind(inner[0], list(inner[1:]))
    for alias, word in _KINDS.items():
        if _is(alias, origin or annotation, metadata):
            return word
    if origin is Literal:
        return ", ".join(f"`{one}`" for one in inner)
    if origin is tuple:
        return f"list of {_kind(inner[0], [])}s"
    if origin in {Mapping, dict}:
        return f"table of {_kind(inner[1], [])}s"
    return _kind(inner[0], []) if inner else _PLAIN[annotation]


def _is(alias: Any, base: Any, metadata: list[Any]) -> bool:
    """Say whether a type is an alias such as `kinds.Seconds`, perhaps with further constraints."""
    kind, *checks = get_args(alias)
    wanted = [one for one in checks if not isinstance(one, FieldInfo)]
    return (get_origin(kind) or kind) is base and all(one in metadata for one in wanted)


def _limits(field: FieldInfo) -> Iterator[str]:
    for check in field.metadata:
        match check:
            case object(func=kinds.Between(shortest, longest)):
                yield f", {shortest} to {longest}"
            case object(ge=least):
                yield f", at least {least}"
            case object(le=most):
                yield f", at most {most}"


def _default(field: FieldInfo, kind: str) -> str:
    if field.is_required():
        return "must be given"
    value = field.get_default(call_default_factory=True, validated_data={})
    if value is None:
        return "not set"
    return f"`{_as_toml(format_duration(value) if kind == 'duration' else value)}`"


def _as_toml(value: Any) -> str:
    match value:
        case Mapping():
            inner = ", ".join(f"{key} = {_as_toml(one)}" for key, one in value.items())
            return f"{{ {inner} }}" if inner else "{}"
        case Path():
            return _as_toml(str(value))
        case TargetUrl():
            return _as_toml(value.text)
        case _:
            return json.dumps(value)


if __name__ == "__main__":
    for name, text in pages().items():
        (FOLDER / name).write_text(text, encoding="utf-8")
