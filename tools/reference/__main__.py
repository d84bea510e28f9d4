"""Write the reference pages into `docs/`: `make docs`."""

from __future__ import annotations

from tools.reference.pages import FOLDER, pages

for name, text in pages().items():
    (FOLDER / name).write_text(text, encoding="utf-8")
