from datetime import UTC, datetime, timedelta
from pathlib import Path

import orjson
import yaml
from typer.testing import CliRunner

from segrelay.ops.main import app
from segrelay.worker.contract.settings import load_settings
from segrelay.worker.errors import UsageWrong


def init(folder, *options):
    return CliRunner().invoke(app, ["init", str(folder), *options])


def test_what_init_writes_is_right(tmp_path):
    place = tmp_path / "new" / "place"
    init(place)

    settings = load_settings(place / "segrelay.toml", environ={})
    assert set(settings.triggers) == {"vip-enter", "vip-exit", "vip-exit-event"}
    ignored = (place / ".gitignore").read_text().splitlines()
    assert {".env", "secrets/", ".segrelay/", ".segrelay-sandbox/"} <= set(ignored)
    for name in ("INSIDER_PARTNER_NAME", "INSIDER_REQUEST_TOKEN"):
        assert f"{name}=" in (place / ".env.example").read_text()
        assert f"env:{name}" in (place / "segrelay.toml").read_text()


def test_init_keeps_what_is_there(tmp_path):
    (tmp_path / "segrelay.toml").write_text("# mine")

    result = init(tmp_path)

    assert (tmp_path / "segrelay.toml").read_text() == "# mine"
    assert f"kept    {tmp_path / 'segrelay.toml'}" in result.stdout
    assert f"written {tmp_path / '.env.example'}" in result.stdout
    assert (tmp_path / ".env.example").stat().st_mode & 0o777 == 0o600


def test_init_refuses_a_file_in_the_place_of_the_folder(tmp_path):
    (tmp_path / "file").write_text("")

    assert isinstance(init(tmp_path / "file").exception, UsageWrong)


def test_init_names_your_own_audience_and_ends_with_a_sandbox_run(tmp_path):
    told = init(tmp_path / "relay", "--audience", "Big_Spenders")

    triggers = load_settings(tmp_path / "relay" / "segrelay.toml", environ={}).triggers
    assert {name.rpartition("-")[0] for name in triggers} >= {"big-spenders"}
    assert {one.audiences for one in triggers.values()} == {("Big_Spenders",)}
    sample = orjson.loads((tmp_path / "relay" / "samples" / "enter.json").read_bytes())
    [entry] = sample["data"]["segment_events"]
    assert entry["slug"] == "Big_Spenders"
    assert datetime.fromisoformat(entry["enter"]) > datetime.now(UTC) - timedelta(days=30)
    assert "segrelay up --sandbox" in told.stdout
    assert "segrelay send samples/enter.json --wait" in told.stdout


def test_init_for_containers_writes_what_runs_the_receiver_too(tmp_path):
    result = init(tmp_path, "--compose", "--audience", "gold")

    settings = load_settings(
        tmp_path / "segrelay.toml", environ={"SEGRELAY_WEBHOOK_SECRET": "a-secret-of-nobody"}
    )
    services = yaml.safe_load((tmp_path / "docker-compose.yml").read_text())["services"]
    needed = [
        line
        for line in (tmp_path / ".env.example").read_text().splitlines()
        if line.startswith(("SEGRELAY_REDIS_PASSWORD", "SEGRELAY_WEBHOOK_SECRET"))
    ]
    assert result.exit_code == 0
    assert settings.producer.webhook
    assert [one.reveal() for one in settings.producer.webhook.secrets] == ["a-secret-of-nobody"]
    assert needed == ["SEGRELAY_REDIS_PASSWORD=", "SEGRELAY_WEBHOOK_SECRET="]
    context = Path(services["worker"]["build"]["context"].removeprefix("${SEGRELAY_SOURCE:-")[:-1])
    assert (context / services["worker"]["build"]["dockerfile"]).is_file()
    assert {name for name, one in services.items() if "profiles" not in one} == {
        *("redis", "worker", "receiver")
    }
    assert "docker compose up" in result.stdout


def test_init_for_any_endpoint_writes_triggers_that_deliver_to_it(tmp_path):
    init(tmp_path, "--api", "http", "--audience", "gold")

    settings = load_settings(tmp_path / "segrelay.toml", environ={"ENDPOINT_AUTHORIZATION": "b c"})
    assert {name: one.api for name, one in settings.destinations.items()} == {"endpoint": "http"}
    assert [one.audiences for one in settings.triggers.values()] == [("gold",), ("gold",)]
    assert settings.warnings == ()
    assert "ENDPOINT_AUTHORIZATION=" in (tmp_path / ".env.example").read_text()
