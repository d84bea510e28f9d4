"""What is rendered while requests are under way keeps nothing waiting, and kills nothing."""

import asyncio
import subprocess
import sys
import textwrap
import time
from contextlib import suppress

import pytest

from segrelay.jsonnet.rendered import Rendered
from segrelay.worker.adapters.jsonnet import AHEAD_ROWS, ProcessRenderer
from tests.integration.worker.adapters.test_rendering_apart import LIBRARY, MB, loaded, rows

COUNTS = LIBRARY + "std.length([1 for i in std.range(1, n)])"
HUNGRY = LIBRARY + "if n > 0 then [std.repeat('a', 40000000) + i for i in std.range(1, n)] else n"
NESTED = LIBRARY + "local f(x) = if x > 0 then 1 + f(x - 1) else 0;\nf(n)"
HASHES = LIBRARY + "if n > 0 then [std.md5(std.repeat('a', 40000000)) for i in std.range(1, n)]"


def compared(folder, source):
    """Load a template, and let both engines render an event: so the compiled form may go alone."""
    renderer, template = loaded(folder, source)
    renderer.render(template, rows(0))
    return renderer, template


async def rendered_beside_others(renderer, template, given):
    """Return what is rendered, and how many turns others have had meanwhile."""
    turns = 0

    async def others():
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    beside = asyncio.create_task(others())
    results = await ProcessRenderer(renderer).render_safely(template, "auto", given)
    beside.cancel()
    return results, turns


def test_other_work_has_its_turn_all_the_time(tmp_path):
    renderer, template = compared(tmp_path, COUNTS)
    given = rows(*[1_000] * 400)

    results, turns = asyncio.run(rendered_beside_others(renderer, template, given))

    assert results == [Rendered(b"1000")] * 400
    assert turns > 10


def test_it_ends_where_others_would_wait_too_long(tmp_path):
    renderer, template = compared(tmp_path, COUNTS)

    results, _ = asyncio.run(rendered_beside_others(renderer, template, rows(*[90_000] * 200)))

    assert len(results) <= 2 * AHEAD_ROWS


@pytest.mark.parametrize(("source", "number"), [(HUNGRY, 500), (HASHES, 1_000)])
def test_what_takes_too_much_is_given_up_and_the_process_lives(tmp_path, source, number):
    (tmp_path / "t.jsonnet").write_text(source)
    code = f"""
        import asyncio, resource, time
        from pathlib import Path
        from tests.integration.worker.adapters.test_rendering_ahead import compared, rows
        from segrelay.worker.adapters.jsonnet import ProcessRenderer
        folder = Path({str(tmp_path)!r})
        renderer, template = compared(folder, (folder / "t.jsonnet").read_text())
        renders = ProcessRenderer(renderer, group_bytes={400 * MB})
        begun, most = time.process_time(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        results = asyncio.run(renders.render_safely(template, "auto", rows(0, {number}, 0)))
        assert len(results) < 3, results
        assert time.process_time() - begun < 5
        # What the process was forked from may have had more.
        more = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - most
        assert more * 1024 < {500 * MB}, more
        again = asyncio.run(renders.render(template, "auto", rows(0), isolated=False))
        assert again[0].body in (b"0", b"null"), again
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(code)], check=True)


def test_what_a_process_has_reserved_is_no_fault_of_what_it_renders(tmp_path):
    (tmp_path / "t.jsonnet").write_text(NESTED)
    code = f"""
        import asyncio, mmap
        from pathlib import Path
        from tests.integration.worker.adapters.test_rendering_ahead import compared, rows
        from segrelay.worker.adapters.jsonnet import ProcessRenderer
        folder = Path({str(tmp_path)!r})
        renderer, template = compared(folder, (folder / "t.jsonnet").read_text())
        reserved = mmap.mmap(-1, {500 * MB}, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        renders = ProcessRenderer(renderer, group_bytes={400 * MB})
        [ahead] = asyncio.run(renders.render_safely(template, "auto", rows(90)))
        [result] = asyncio.run(renders.render(template, "auto", rows(90), isolated=False))
        assert ahead.body == result.body == b"90", (ahead, result)
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(code)], check=True)


class DropsErrors:
    """Renders for long; what a signal raises is dropped, as amid the end of an object."""

    @staticmethod
    def render_ahead(*_args, **_options):
        ends_at = time.process_time() + 5
        with suppress(BaseException):
            while time.process_time() < ends_at:
                pass
        while time.process_time() < ends_at:
            pass
        return []


def test_a_limit_holds_although_the_error_of_its_signal_is_dropped():
    begun = time.process_time()

    asyncio.run(ProcessRenderer(DropsErrors()).render_safely(None, "auto", rows(0)))

    assert time.process_time() - begun < 4
