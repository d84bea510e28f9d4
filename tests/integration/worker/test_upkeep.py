"""Templates that change while a process works: what it takes over, and what it keeps."""

import asyncio
import resource
from contextlib import ExitStack, closing

import pytest

from segrelay.worker.batch.partition import Stop
from segrelay.worker.contract import keys
from segrelay.worker.contract.redis.connection import connect
from segrelay.worker.contract.settings import load_settings
from segrelay.worker.node.loading import EVERY_SECONDS, Upkeep, load
from segrelay.worker.node.runtime import Runtime, announce
from tests.configuration import configuration, endpoint, trigger


def written(folder, redis_url, *names):
    """Write a configuration with triggers of these names, which share a template."""
    triggers = [trigger(n, destination="d", template="t.jsonnet", url="/x") for n in names]
    path = folder / "segrelay.toml"
    path.write_text(configuration(endpoint("d"), *triggers, redis=redis_url))
    return path


@pytest.fixture
def folder(tmp_path, redis_url):
    folder = tmp_path / "templates"
    folder.mkdir()
    (folder / "t.jsonnet").write_text("{ a: (import 'part.libsonnet').a }")
    (folder / "part.libsonnet").write_text("{ a: 1 }")
    written(tmp_path, redis_url, "t")
    return folder


@pytest.fixture
def upkeep(folder):
    """The upkeep of one process, and a function that lets it look: the clock stands otherwise."""
    settings = load_settings(folder.parent / "segrelay.toml")
    with closing(Runtime(settings)) as runtime:
        loaded = runtime.upkeep
    now = [0.0]
    upkeep = Upkeep(settings, loaded.renderer, loaded.triggers, lambda: now[0])

    def look():
        now[0] += EVERY_SECONDS
        upkeep.look()
        return upkeep.triggers["d"]["t"]

    look()
    return upkeep, look


def test_a_changed_import_is_taken_over(folder, upkeep):
    _, look = upkeep
    before = look().template

    (folder / "part.libsonnet").write_text("{ a: 22 }")

    after = look()
    assert after.template.content_hash != before.content_hash
    assert after.stopped == ""


@pytest.mark.parametrize(
    ("broken", "said"),
    [
        ("{ a: ", "t.jsonnet:1"),
        ("{ a: import 'none.libsonnet' }", "none.libsonnet"),
        ("{ a: import '/etc/hostname' }", "absolute path"),
        ("local a = [a]; a", "endless recursion"),
        ("{ a: std.extVar('event').none }", "fails for the sample that the version before renders"),
        ("{ a: 1 / 0 }", "t.jsonnet:1"),
    ],
)
def test_a_broken_template_is_refused_and_the_one_before_kept(folder, upkeep, broken, said):
    keeper, look = upkeep
    before = look()

    (folder / "t.jsonnet").write_text(broken)
    kept = look()
    refused = dict(keeper.refused)
    (folder / "t.jsonnet").write_text("{ a: 3 }")
    mended = look()

    assert kept == before
    assert said in refused["t"]
    assert mended.template != before.template
    assert keeper.refused == {}


def test_a_template_that_was_broken_at_the_start_is_taken_over_when_it_is_mended(folder):
    (folder / "t.jsonnet").write_text("{")
    with closing(Runtime(load_settings(folder.parent / "segrelay.toml"))) as runtime:
        assert set(runtime.upkeep.stopped) == {"t"}

        (folder / "t.jsonnet").write_text("{ a: 1 }")
        runtime.upkeep.look()

        assert not runtime.upkeep.stopped


def test_a_refused_template_whose_check_takes_long_keeps_no_other_from_being_checked(
    folder, upkeep
):
    keeper, look = upkeep
    keeper.settings = load_settings(written(folder.parent, "redis://127.0.0.1:1", "t", "u"))
    keeper.triggers["d"]["u"] = keeper.triggers["d"]["t"]
    by_looks = keeper.clock

    def clock():  # each check is a process of its own, and is to take minutes
        return by_looks() + 10_000 * sum(resource.getrusage(resource.RUSAGE_CHILDREN)[:2])

    keeper.clock = clock
    (folder / "t.jsonnet").write_text("{ a: 1 / 0 }")
    look()
    first = set(keeper.refused)
    look()

    assert (first, set(keeper.refused)) == ({"t"}, {"t", "u"})


def test_what_a_process_takes_over_is_the_newest_and_what_it_inherited_is_not(folder, redis_url):
    settings = load_settings(folder.parent / "segrelay.toml")
    loaded = load(settings)
    asyncio.run(announce(settings, loaded))
    with connect(redis_url) as client, ExitStack() as stack:
        first, second = (stack.enter_context(closing(Runtime(settings, loaded))) for _ in "ab")
        newest = [client.hget(keys.FINGERPRINTS, "t")]
        (folder / "t.jsonnet").write_text("{ a: 2 }")
        first.drain("d", 0, Stop())
        newest.append(client.hget(keys.FINGERPRINTS, "t"))

        second.upkeep.clock = lambda: 0.0  # it does not look again
        second.drain("d", 0, Stop())

        assert newest[0] != newest[1] == client.hget(keys.FINGERPRINTS, "t")
