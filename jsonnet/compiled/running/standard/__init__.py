"""The functions of `std` that compiled templates may call."""

from segrelay.jsonnet.compiled.running.natives import NATIVES
from segrelay.jsonnet.compiled.running.standard import arrays, numbers, objects, texts

__all__ = ["NATIVES", "arrays", "numbers", "objects", "sets", "texts", "types"]
