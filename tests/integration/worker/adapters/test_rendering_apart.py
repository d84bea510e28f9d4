"""Finding the event that kills: it alone is to blame, whatever else ends a process."""

import asyncio
import os
import resource
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import pytest

from segrelay.jsonnet.files import TemplateFolder
from segrelay.jsonnet.isolated import DiedAt, render_isolated
from segrelay.jsonnet.rendered import Killed, Rendered, Row, TemplateFailed
from segrelay.jsonnet.renderer import Renderer
from segrelay.templates import LYTEMPLATES
from segrelay.worker.adapters.jsonnet import KILLED_AT_MOST, ProcessRenderer
from tests.child_processes import children_of, command_of
from tests.nightly import amount
from tests.waiting import allowed, until

MB = 1_000_000
LIBRARY = "local event = import 'lytemplates.libsonnet';\nlocal n = event.get('n');\n"
ENDLESS = "std.length([1 for i in std.range(1, 1000000000) if i < 0])"
REFERS_TO_ITSELF = LIBRARY + "if n < 0 then (local a = [a]; a) else n"
SPINS = LIBRARY + f"if n < 0 then {ENDLESS} else n"
RECURS = LIBRARY + "local f(x) = f(x + 1) tailstrict;\nif n < 0 then f(0) else n"
GIGANTIC = LIBRARY + "std.length(std.repeat('a', if n < 0 then 1000000000000 else 1))"
TOO_WIDE = LIBRARY + "std.length(('%' + (if n < 0 then 9999999999 else 9) + 'd') % 1)"
HUNGRY = LIBRARY + "std.length(std.sort(std.range(0, if n < 0 then 100000000 else 1)))"


def rows(*numbers):
    return [Row(b'{"n": %d}' % number) for number in numbers]


def loaded(folder, source):
    (folder / "t.jsonnet").write_text(source)
    renderer = Renderer(folder, LYTEMPLATES)
    return renderer, renderer.load("t.jsonnet")


def read(folder):
    return TemplateFolder(folder, LYTEMPLATES).bundle("t.jsonnet")


def render_apart(folder, source, *numbers):
    renderer, template = loaded(folder, source)
    renders = ProcessRenderer(renderer, isolated_seconds=1.0, isolated_bytes=400 * MB)
    return apart_by(renders, template, *numbers)


def apart_by(renders, template, *numbers):
    return asyncio.run(renders.render(template, "jsonnet", rows(*numbers), isolated=True))


def bodies(results):
    return [r.body if isinstance(r, Rendered) else type(r) for r in results]


@pytest.mark.parametrize(
    "source",
    amount([RECURS, HUNGRY], nightly=[REFERS_TO_ITSELF, RECURS, GIGANTIC, TOO_WIDE, HUNGRY]),
)
def test_exactly_the_event_that_kills_is_found(tmp_path, source):
    def found():
        """Try again where a busy machine gave it no processor, as a drain does."""
        kinds = [type(result) for result in render_apart(tmp_path, source, 1, -1, 2, 3, -2, 4)]
        return kinds if len(kinds) == 6 else None

    assert until(found, 60) == [Rendered, Killed, Rendered, Rendered, Killed, Rendered]


def test_what_never_ends_is_found_by_the_time_it_takes(tmp_path):
    def found():
        """Try again where a busy machine gave it no processor, as a drain does."""
        kinds = [type(result) for result in render_apart(tmp_path, SPINS, 1, -1, 2)]
        assert kinds == [Rendered, Killed, Rendered][: len(kinds)]
        return kinds[1:]

    assert until(found, 60)[0] is Killed


def test_no_more_than_a_few_die_in_one_call(tmp_path):
    def found():
        """Try again where a busy machine gave it no processor, as a drain does."""
        results = render_apart(tmp_path, REFERS_TO_ITSELF, *range(-50, 0))
        return bodies(results) == [Killed] * KILLED_AT_MOST

    assert until(found, 60)


def test_more_rows_than_a_pipe_holds_are_rendered_however_late_they_are_read(tmp_path):
    (tmp_path / "t.jsonnet").write_text(REFERS_TO_ITSELF)
    many = [Row(b'{"n": 1, "text": "%s"}' % (b"x" * 20_000)) for _ in range(200)]

    results = render_isolated(read(tmp_path), many, seconds=30, memory_bytes=1 << 29)

    assert [type(result) for result in results] == [Rendered] * len(many)


@pytest.mark.parametrize(
    "number", amount([signal.SIGTERM], nightly=[signal.SIGTERM, signal.SIGKILL, signal.SIGINT])
)
def test_a_signal_from_outside_proves_nothing(tmp_path, number):
    (tmp_path / "t.jsonnet").write_text(SPINS)
    killer = threading.Thread(target=signal_children, args=(number,))
    killer.start()

    outcome = render_isolated(read(tmp_path), rows(-1), "jsonnet", seconds=60, memory_bytes=1 << 29)
    killer.join()

    assert isinstance(outcome, DiedAt)
    assert outcome.by_others


def signal_children(number):
    """Signal the throw-away process once it is at its row."""
    busy = until(lambda: [pid for pid in apart() if cpu_seconds(pid) > 0.5])
    os.kill(busy[0], number)


def apart():
    """Return the throw-away processes that render for this one."""
    return [pid for pid in children_of(os.getpid()) if b"jsonnet.isolated" in command_of(pid)]


def cpu_seconds(pid):
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def test_a_stopped_process_has_not_run_out_of_time(tmp_path):
    (tmp_path / "t.jsonnet").write_text(
        LIBRARY + "std.foldl(function(a, b) a + b, std.range(0, 20000), 0)"
    )

    def render(found):
        limits = {"seconds": 2, "memory_bytes": 1 << 29}
        found.append(render_isolated(read(tmp_path), rows(1), "jsonnet", **limits))

    def outcome():
        """Try again where a busy machine gave it no processor, or where it was not seen in time."""
        rendering = threading.Thread(target=render, args=[found := []])
        rendering.start()
        pids = until(lambda: apart() or found)
        if is_stopped := not found:
            os.kill(*pids, signal.SIGSTOP)
            time.sleep(3)
            os.kill(*pids, signal.SIGCONT)
        rendering.join()
        by_others = isinstance(found[0], DiedAt) and found[0].by_others
        return found[0] if is_stopped and not by_others else None

    assert bodies(until(outcome, 60)) == [b"200010000"]


def test_who_is_told_to_stop_gives_up_and_blames_nobody(tmp_path):
    renderer, template = loaded(tmp_path, SPINS)
    told_at = time.monotonic() + 1.0
    renders = ProcessRenderer(renderer, lambda: time.monotonic() > told_at)

    results = apart_by(renders, template, 1, -1, 2)

    assert bodies(results)[1:] == []
    assert time.monotonic() - told_at < allowed(2)


@pytest.mark.parametrize("refused", ["{ n: 'refused' }", "{ broken", None])
def test_a_suspect_is_rendered_with_the_version_that_was_accepted(tmp_path, refused):
    (tmp_path / "part.libsonnet").write_text("{ n: 7 }")
    renderer, template = loaded(tmp_path, LIBRARY + "(import 'part.libsonnet') + { sent: n }")
    for name in ("t.jsonnet", "part.libsonnet"):
        if refused is None:
            (tmp_path / name).unlink()
        else:
            (tmp_path / name).write_text(refused)

    results = apart_by(ProcessRenderer(renderer), template, 1)

    assert bodies(results) == [b'{"n": 7, "sent": 1}']


def in_a_process(folder, source, code, limits=f"group_bytes={400 * MB}"):
    """Run code in a process of its own, with a renderer and a template that it has loaded."""
    (folder / "t.jsonnet").write_text(source)
    begin = f"""
        import asyncio, mmap, resource, time
        from pathlib import Path
        from segrelay.worker.adapters.jsonnet import ProcessRenderer
        from tests.integration.worker.adapters.test_rendering_apart import loaded, rows
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        folder = Path({str(folder)!r})
        renderer, template = loaded(folder, (folder / "t.jsonnet").read_text())
        renderer.render(template, rows(0))
        renders = ProcessRenderer(renderer, {limits})
    """
    script = textwrap.dedent(begin) + textwrap.dedent(code)
    return subprocess.run(
        [sys.executable, "-c", script], capture_output=True, timeout=120, check=False
    )


@pytest.mark.parametrize(("source", "number"), [(SPINS, signal.SIGPROF), (HUNGRY, signal.SIGABRT)])
def test_the_kernel_ends_a_process_that_renders_too_long_or_too_much(tmp_path, source, number):
    done = in_a_process(
        tmp_path,
        source,
        """
        rendered = renders.render(template, "jsonnet", rows(1, 2), isolated=False)
        print(asyncio.run(rendered), flush=True)
        asyncio.run(renders.render(template, "jsonnet", rows(1, -1), isolated=False))
        """,
        f"group_seconds=1, group_bytes={400 * MB}",
    )

    assert done.stdout.count(b"Rendered(") == 2
    assert done.returncode == -number, done.stderr


def test_the_limits_are_gone_when_the_group_is_rendered(tmp_path):
    renderer, template = loaded(tmp_path, SPINS)
    renders = ProcessRenderer(renderer)
    before = resource.getrlimit(resource.RLIMIT_DATA)

    results = asyncio.run(renders.render(template, "jsonnet", rows(1), isolated=False))

    assert [type(result) for result in results] == [Rendered]
    assert signal.getitimer(signal.ITIMER_PROF) == (0.0, 0.0)
    assert resource.getrlimit(resource.RLIMIT_DATA) == before


@pytest.mark.parametrize(
    "source",
    amount([SPINS, HUNGRY], nightly=[SPINS, HUNGRY, GIGANTIC, TOO_WIDE, REFERS_TO_ITSELF]),
)
def test_a_compiled_template_that_does_not_end_costs_its_event_and_no_process(tmp_path, source):
    renderer, template = loaded(tmp_path, source)
    renders = ProcessRenderer(renderer)

    results = asyncio.run(renders.render(template, "auto", rows(1, -1, 2), isolated=False))

    assert [type(result) for result in results] == [Rendered, TemplateFailed, Rendered]
