"""`segrelay template watch`: renders at every save, shows errors in place, ends with Ctrl-C."""

import signal

import pytest

from segrelay.ops.run.up import own_command
from segrelay.templates import SHIPPED_FOLDER
from tests.waiting import until
from tests.warm import WarmProcess

SAMPLE = SHIPPED_FOLDER / "samples" / "enter.json"
GOOD = "local event = import 'lytemplates.libsonnet';\n{ name: event.get('first_name') }\n"


@pytest.fixture
def watched(tmp_path):
    """Watch a template; returns its file, the process, and what says whether it shows words."""
    template, output = tmp_path / "vip.jsonnet", tmp_path / "output"
    template.write_text(GOOD)
    command = own_command("template", "watch", "vip", str(SAMPLE), "--templates", str(tmp_path))
    with output.open("wb") as file:
        process = WarmProcess(command, stdout=file, stderr=file)

    try:
        yield (
            template,
            process,
            lambda words: until(lambda: words in output.read_text(), 30, else_show=output),
        )
    finally:
        process.kill()
        process.wait()


def test_every_save_is_rendered_and_a_mistake_shown_until_it_is_mended(watched):
    template, process, wait_for = watched
    wait_for('"name": "Ann"')

    template.write_text(GOOD.replace("name')", "name'"))
    wait_for("vip.jsonnet:2:")
    template.write_text(GOOD.replace("{ name", "{ called"))
    wait_for('"called": "Ann"')

    process.send_signal(signal.SIGINT)
    assert process.wait(120) == 0
