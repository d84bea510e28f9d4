"""The functions of `std` that compiled templates may call."""

from segrelay.jsonnet.compiled.running.natives import NATIVES
from segrelay.jsonnet.compiled.running.standard import containers, scalars

__all__ = ["NATIVES", "containers", "scalars"]
