"""What is rendered while requests are under way kills nothing."""

import time
from contextlib import suppress

import pytest

from segrelay.worker.adapters.jsonnet import ProcessRenderer
from tests.integration.worker.adapters.test_rendering_apart import (
    LIBRARY,
    MB,
    in_a_process,
    rows,
)

HUNGRY = LIBRARY + "if n > 0 then [std.repeat('a', 40000000) + i for i in std.range(1, n)] else n"
NESTED = LIBRARY + "local f(x) = if x > 0 then 1 + f(x - 1) else 0;\nf(n)"
HASHES = LIBRARY + "if n > 0 then [std.md5(std.repeat('a', 40000000)) for i in std.range(1, n)]"


@pytest.mark.parametrize(("source", "number"), [(HUNGRY, 500), (HASHES, 1_000)])
def test_what_takes_too_much_is_given_up_and_the_process_lives(tmp_path, source, number):
    done = in_a_process(
        tmp_path,
        source,
        f"""
        begun, most = time.process_time(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        assert renders.render_safely(template, "auto", rows({number})[0]) is None
        assert time.process_time() - begun < 5
        # What the process was forked from may have had more.
        more = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - most
        assert more * 1024 < {500 * MB}, more
        again = asyncio.run(renders.render(template, "auto", rows(0), isolated=False))
        assert again[0].body in (b"0", b"null"), again
        """,
    )

    assert done.returncode == 0, done.stderr


def test_what_a_process_has_reserved_is_no_fault_of_what_it_renders(tmp_path):
    done = in_a_process(
        tmp_path,
        NESTED,
        f"""
        reserved = mmap.mmap(-1, {500 * MB}, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        [result] = asyncio.run(renders.render(template, "auto", rows(90), isolated=False))
        safe = renders.render_safely(template, "auto", rows(90)[0])
        assert safe.body == result.body == b"90", (safe, result)
        """,
    )

    assert done.returncode == 0, done.stderr


class DropsErrors:
    """Renders for long; what a signal raises is dropped, as amid the end of an object."""

    @staticmethod
    def render_safely(*_args):
        ends_at = time.process_time() + 5
        with suppress(BaseException):
            while time.process_time() < ends_at:
                pass
        while time.process_time() < ends_at:
            pass


def test_a_limit_holds_although_the_error_of_its_signal_is_dropped():
    begun = time.process_time()

    ProcessRenderer(DropsErrors()).render_safely(None, "auto", rows(0)[0])

    assert time.process_time() - begun < 4
