"""The entrance template of Lytics' page, as it is printed: it reads the id of the audience."""

from pathlib import Path

from tests.journeys.play import Rig, start_worker, status_of

PAGE = (Path(__file__).parents[2] / "conformance/templates/page_entrance.jsonnet").read_text()
SYNC = """
[lytics]
base_url = "SANDBOX"
token = "a-token-of-nobody"
[sync.vips]
audience = "vip"
every = "1h"
"""


def test_where_no_id_is_known_the_worker_and_the_check_say_so_before_anything_dies(tmp_path):
    templates = {"insider/enter.jsonnet": PAGE}
    with Rig(tmp_path, more=SYNC, templates=templates, audiences=["vip"]) as rig:
        start_worker(rig)
        log = rig.worker_log(0).read_text()
        told = rig.command("config", "check")

        assert status_of(rig)["dead"] == 0
        for text in (log, told.stderr.decode()):
            assert "insider/enter.jsonnet:53: no such field: id." in text
            assert "set audience_id in [sync.vips]" in text
        assert "trigger.needs_id" in log
        assert told.returncode == 0
