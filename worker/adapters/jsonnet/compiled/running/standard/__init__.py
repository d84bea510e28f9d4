"""The functions of `std` that compiled templates may call."""

from worker.adapters.jsonnet.compiled.running.natives import NATIVES
from worker.adapters.jsonnet.compiled.running.standard import (
    arrays,
    numbers,
    objects,
    sets,
    texts,
    types,
)

__all__ = ["NATIVES", "arrays", "numbers", "objects", "sets", "texts", "types"]
