"""Hands a bundle to the compiler."""

from __future__ import annotations

from worker.adapters.jsonnet.compiled import Sources
from worker.adapters.template_files import LIBRARY_NAME, Bundle


def sources_of(bundle: Bundle) -> Sources:
    """Return what the compiler needs of a bundle."""
    targets = {
        (name, found.target): target
        for name, file in bundle.files.items()
        for found, target in file.imports
    }
    texts = {name: file.text for name, file in bundle.files.items()}
    return Sources(bundle.root, texts, targets, LIBRARY_NAME)
