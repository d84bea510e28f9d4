"""The functions of `std` that compiled templates may call."""

from worker.jsonnet.compiled.running.natives import NATIVES
from worker.jsonnet.compiled.running.standard import arrays, numbers, objects, sets, texts, types

__all__ = ["NATIVES", "arrays", "numbers", "objects", "sets", "texts", "types"]
