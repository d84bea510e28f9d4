"""The entrance template of Lytics' page, as it is printed: it reads the id of the audience."""

from pathlib import Path

from tests.journeys.play import Rig

PAGE = (Path(__file__).parents[2] / "conformance/templates/page_entrance.jsonnet").read_text()
SYNC = """
[lytics]
base_url = "SANDBOX"
token = "a-token-of-nobody"
[sync.vips]
audience = "vip"
every = "1h"
"""


def test_where_no_id_is_known_the_check_says_so_before_anything_dies(tmp_path):
    templates = {"insider/enter.jsonnet": PAGE}
    with Rig(tmp_path, more=SYNC, templates=templates, audiences=["vip"]) as rig:
        told = rig.command("config", "check")

        text = told.stderr.decode()
        assert "insider/enter.jsonnet:53: no such field: id." in text
        assert "set audience_id in [sync.vips]" in text
        assert told.returncode == 0
