"""Detection of characters that were damaged when a template was copied from a web page."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from worker.jsonnet.syntax.tokens import Token, TokenKind

_VALID_ESCAPES: Final = frozenset("\"'\\/bfnrtu")
_ANY_ESCAPE: Final = re.compile(r"\\(.)", re.DOTALL)


def markdown_damage(found: Sequence[Token]) -> tuple[int, str] | None:
    r"""Return offset and text of the first escape that only Markdown makes, such as `\[` or `\_`.

    Templates copied from a page often carry them: outside a string a backslash means nothing in
    Jsonnet, and in a string only some escapes exist.
    """
    for token, after in zip(found, [*found[1:], None], strict=True):
        if token.text == "\\":
            return token.start, token.text + (after.text[:1] if after is not None else "")
        if token.kind is not TokenKind.STRING:
            continue
        for escape in _ANY_ESCAPE.finditer(token.text):
            if escape[1] not in _VALID_ESCAPES:
                return token.start + escape.start(), escape.group()
    return None
