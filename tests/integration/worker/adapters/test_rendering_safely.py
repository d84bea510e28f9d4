"""What is rendered while requests are under way kills nothing."""

import subprocess
import sys
import textwrap
import time
from contextlib import suppress

import pytest

from segrelay.worker.adapters.jsonnet import ProcessRenderer
from tests.integration.worker.adapters.test_rendering_apart import LIBRARY, MB, rows

HUNGRY = LIBRARY + "if n > 0 then [std.repeat('a', 40000000) + i for i in std.range(1, n)] else n"
NESTED = LIBRARY + "local f(x) = if x > 0 then 1 + f(x - 1) else 0;\nf(n)"
HASHES = LIBRARY + "if n > 0 then [std.md5(std.repeat('a', 40000000)) for i in std.range(1, n)]"


def in_a_process(folder, source, code):
    """Run code in a process of its own, with a renderer and a template that it has loaded."""
    (folder / "t.jsonnet").write_text(source)
    begin = f"""
        import asyncio, mmap, resource, time
        from pathlib import Path
        from segrelay.worker.adapters.jsonnet import ProcessRenderer
        from tests.integration.worker.adapters.test_rendering_apart import loaded, rows
        folder = Path({str(folder)!r})
        renderer, template = loaded(folder, (folder / "t.jsonnet").read_text())
        renderer.render(template, rows(0))
        renders = ProcessRenderer(renderer, group_bytes={400 * MB})
    """
    script = textwrap.dedent(begin) + textwrap.dedent(code)
    subprocess.run([sys.executable, "-c", script], check=True)


@pytest.mark.parametrize(("source", "number"), [(HUNGRY, 500), (HASHES, 1_000)])
def test_what_takes_too_much_is_given_up_and_the_process_lives(tmp_path, source, number):
    in_a_process(
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


def test_what_a_process_has_reserved_is_no_fault_of_what_it_renders(tmp_path):
    in_a_process(
        tmp_path,
        NESTED,
        f"""
        reserved = mmap.mmap(-1, {500 * MB}, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        [result] = asyncio.run(renders.render(template, "auto", rows(90), isolated=False))
        safe = renders.render_safely(template, "auto", rows(90)[0])
        assert safe.body == result.body == b"90", (safe, result)
        """,
    )


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
