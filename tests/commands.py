"""Our commands, called within the process of a test."""

from typing import Any

from click.testing import Result
from typer.testing import CliRunner

from segrelay.ops.main import app


def called(*arguments: Any, stdin: str | bytes | None = None) -> Result:
    """Call a command as a person at no terminal does; what it raises reaches the test."""
    result = CliRunner().invoke(app, [str(one) for one in arguments], input=stdin)
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result
