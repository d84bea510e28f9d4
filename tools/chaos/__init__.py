"""The chaos test, `make chaos`: it breaks every part of a running segrelay, and checks promises."""
