"""Starts the embedded Redis of a data directory if it does not run, and prints its URL."""

from __future__ import annotations

import sys
from pathlib import Path

from segrelay.ops.embedded.lifecycle import ensure_running
from segrelay.worker.errors import SegrelayError, UsageWrong


def main() -> None:
    """Print the URL of the server of the directory named on the command line."""
    try:
        if len(sys.argv) != 2:  # noqa: PLR2004 - the program and one argument
            raise UsageWrong("usage: python -m segrelay.ops.embedded DATA_DIR")
        data_dir = Path(sys.argv[1])
        sys.stdout.write(f"{ensure_running(data_dir).url}\n")
    except SegrelayError as error:
        sys.stderr.write(f"{error.message}\n")
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
