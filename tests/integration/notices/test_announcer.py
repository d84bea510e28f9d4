"""What a process beside deliveries does about messages."""

from structlog.testing import capture_logs

from segrelay.ops.status.alerts import start_announcer
from segrelay.worker.contract.settings import load_settings
from tests.configuration import configuration, endpoint, table, trigger


def settings_with(tmp_path, *tables):
    (tmp_path / "templates").mkdir()
    (tmp_path / "templates" / "any.jsonnet").write_text("{}")
    path = tmp_path / "segrelay.toml"
    path.write_text(configuration(endpoint("one"), trigger("vip", destination="one"), *tables))
    return load_settings(path, environ={})


def test_a_process_that_lacks_the_address_says_that_it_announces_nothing(tmp_path):
    settings = settings_with(tmp_path, table("operate.notify", url="env:CHAT_URL"))

    with capture_logs() as said:
        assert start_announcer(settings) is None

    (line,) = said
    assert (line["event"], line["log_level"]) == ("alerts.off", "warning")
    assert "env:CHAT_URL" in line["message"]


def test_without_the_table_nothing_is_said(tmp_path):
    settings = settings_with(tmp_path)

    with capture_logs() as said:
        assert start_announcer(settings) is None

    assert said == []
