"""Names that the shell completes, from the configuration and from Redis."""

from segrelay.ops.main import COMPLETED
from tests.configuration import trigger
from tests.integration.ops.relay import LYTICS, payload

NAME = "very-important-people-of-the-north-enter"


def test_the_shell_completes_names(relay, sandbox, monkeypatch):
    entrances = trigger(NAME, audiences=["*"], template="enter.jsonnet")
    relay.configure(LYTICS.format(url=sandbox.url), triggers=entrances)
    relay.publish(payload("ann@example.com", audience="north"))
    monkeypatch.setenv("SEGRELAY_CONFIG", str(relay.settings.source))

    assert COMPLETED["trigger"]("very") == [NAME]
    assert COMPLETED["trigger"]("other") == []
    assert COMPLETED["destination"]("") == ["insider"]
    assert COMPLETED["sync name"]("v") == ["vip"]
    assert COMPLETED["template"]("en") == ["enter.jsonnet"]
    assert COMPLETED["pause names"]("") == ["insider", NAME]
    assert COMPLETED["audience"]("vip") == ["vip"]


def test_what_can_not_be_read_completes_nothing_and_says_nothing(tmp_path, monkeypatch, capfd):
    (tmp_path / "segrelay.toml").write_text("[redis\n")
    monkeypatch.setenv("SEGRELAY_CONFIG", str(tmp_path / "segrelay.toml"))

    assert [complete("v") for complete in COMPLETED.values()] == [[]] * len(COMPLETED)
    assert capfd.readouterr() == ("", "")
