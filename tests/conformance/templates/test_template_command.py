import json
import os
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest
from typer.testing import CliRunner

from segrelay.jsonnet.rendered import TemplateBroken
from segrelay.ops.main import app
from segrelay.templates import SAMPLES_FOLDER, SHIPPED_FOLDER
from segrelay.worker.errors import UsageWrong
from tests.configuration import configuration, endpoint, trigger
from tests.nightly import amount
from tests.waiting import until


@pytest.fixture
def run():
    def invoke(*arguments):
        return CliRunner().invoke(app, ["template", *(str(argument) for argument in arguments)])

    return invoke


def test_the_shipped_templates_are_fit_and_compiled(run):
    """By day one of them; `test_shipped_templates.py` has what each of them renders."""
    names = sorted(
        str(path.relative_to(SHIPPED_FOLDER)) for path in SHIPPED_FOLDER.rglob("*.jsonnet")
    )

    asked = amount(["insider/enter.jsonnet"], nightly=[])
    result = run("check", *asked, "--templates", SHIPPED_FOLDER, "--json")

    reports = json.loads(result.stdout)["templates"]
    assert result.exit_code == 0
    assert [report["template"] for report in reports] == (asked or names)
    assert all(report["fit"] and not report["findings"] for report in reports)
    assert all(report["compiled"] and not report["not_compiled"] for report in reports)


def test_a_template_that_is_not_compiled_is_named_with_the_place_that_forbids_it(run, tmp_path):
    (tmp_path / "a.jsonnet").write_text("{\n  flags: (function(s) 4)(std),\n}")

    result = run("check", "--templates", tmp_path)

    assert result.exit_code == 0
    assert "not compiled to Python" in result.output
    assert "a.jsonnet:2:26: std as a value" in result.output


def test_the_triggers_settings_and_sample_are_used(run, tmp_path, monkeypatch):
    (tmp_path / "templates").mkdir()
    (tmp_path / "templates" / "t.jsonnet").write_text(
        "local e = import 'lytemplates.libsonnet';\n"
        "assert e.jobConfGet('k') == 'v' : 'no k';\n{ users: [{ a: e.get('mine') }] }"
    )
    (tmp_path / "mine.json").write_text('{"mine": 1, "segment_events": [{"event": "enter"}]}')
    used = {"sample": "mine.json", "settings": {"k": "v"}}
    one = trigger("t-one", destination="d", template="t.jsonnet", url="/x", **used)
    (tmp_path / "segrelay.toml").write_text(configuration(endpoint("d"), one))
    monkeypatch.setenv("SEGRELAY_CONFIG", str(tmp_path / "segrelay.toml"))

    result = run("check", "--json")

    [report] = json.loads(result.stdout)["templates"]
    assert report["renders"] == {"trigger t-one": "rendered"}


def test_rendering_prints_a_body_for_each_segment_event(run, tmp_path):
    payload = json.loads((SAMPLES_FOLDER / "exit.json").read_text())
    payload["data"]["segment_events"] *= 2
    (tmp_path / "two.json").write_text(json.dumps([payload]))

    result = run(
        *("render", "insider/exit.jsonnet", tmp_path / "two.json", "--templates", SHIPPED_FOLDER),
        "--json",
    )

    outcomes = json.loads(result.stdout)
    assert [outcome["outcome"] for outcome in outcomes] == ["rendered"] * 2
    assert outcomes[0]["body"]["users"][0]["custom"] == {
        "partial": {"lytics_computed_attr": ["vip"]}
    }


def test_rendering_tells_a_skip_from_a_failure(run, tmp_path):
    (tmp_path / "t.jsonnet").write_text(
        "local e = import 'lytemplates.libsonnet';\n"
        "assert e.isEnter() : 'no entrance';\n{ a: e.get('none').x }"
    )

    def failure_with_its_line():
        """Try again where a busy machine gave the engine that knows the line no processor."""
        failed = run("render", "t.jsonnet", SAMPLES_FOLDER / "enter.json", "--templates", tmp_path)
        assert failed.exit_code == 2
        assert "failed: " in failed.output
        return "failed: t.jsonnet:3: " in failed.output

    skipped = run("render", "t.jsonnet", SAMPLES_FOLDER / "exit.json", "--templates", tmp_path)

    assert skipped.exit_code == 0
    assert "skipped: no entrance" in skipped.output
    assert until(failure_with_its_line)


@pytest.mark.parametrize(
    ("content", "words"), [("{", "is not JSON"), ("[1, {}]", "no payload"), (None, "can't be read")]
)
def test_a_file_that_holds_no_payload_is_said_to(run, tmp_path, content, words):
    path = tmp_path / "payload.json"
    if content is not None:
        path.write_text(content)

    result = run("render", "insider/exit.jsonnet", path, "--templates", SHIPPED_FOLDER)

    assert isinstance(result.exception, UsageWrong)
    assert words in result.exception.message


def test_a_template_that_kills_ends_the_command_with_a_message(run, tmp_path):
    (tmp_path / "t.jsonnet").write_text("local a = [a, std]; a")

    result = run("render", "t.jsonnet", SAMPLES_FOLDER / "exit.json", "--templates", tmp_path)

    assert isinstance(result.exception, TemplateBroken)
    assert "event 1 of 1" in result.exception.message


def test_a_template_that_fails_or_is_warned_of_is_told_by_the_exit_code(run, tmp_path):
    (tmp_path / "fails.jsonnet").write_text("{ a: error 'no' }")
    (tmp_path / "warns.jsonnet").write_text("assert false : 'no'; {}")

    codes = [
        run("check", name, "--templates", tmp_path, *options).exit_code
        for name, *options in (["fails.jsonnet"], ["warns.jsonnet"], ["warns.jsonnet", "--strict"])
    ]

    assert codes == [2, 0, 2]


RUN_ALL = """
import json, sys
from typer.testing import CliRunner
from segrelay.ops.main import app
results = [CliRunner().invoke(app, arguments) for arguments in json.loads(sys.argv[1])]
print(json.dumps([[result.exit_code, result.stdout, result.stderr] for result in results]))
"""


@pytest.fixture
def without_judges(tmp_path):
    """Run commands on a machine that lacks the other engines; return what each says."""
    packages = tmp_path / "packages"
    packages.mkdir()
    for installed in Path(sysconfig.get_path("purelib")).iterdir():
        if not installed.name.startswith(("_jsonnet", "_gojsonnet", "gojsonnet")):
            (packages / installed.name).symlink_to(installed)
    path = os.pathsep.join([str(SHIPPED_FOLDER.parent), str(packages)])

    def run(*commands):
        done = subprocess.run(
            [sys.executable, "-S", "-c", RUN_ALL, json.dumps(commands)],
            env={**os.environ, "PYTHONPATH": path},
            capture_output=True,
            check=True,
        )
        return json.loads(done.stdout)

    return run


def test_everything_works_without_other_engines_and_the_check_says_so(without_judges, tmp_path):
    folder = tmp_path / "templates"
    folder.mkdir()
    (folder / "t.jsonnet").write_text("{ users: [{ a: error 'no' }] }")
    (folder / "damaged.jsonnet").write_text('{\n  "users": \\[\n}')
    of_one = ("template", "check", "insider/enter.jsonnet", "--templates", str(SHIPPED_FOLDER))

    fit, document, broken = without_judges(
        of_one, (*of_one, "--json"), ("template", "check", "--templates", str(folder))
    )

    assert [fit[0], document[0], broken[0]] == [0, 0, 2]
    assert "compared with no other engine" in fit[2]
    assert json.loads(document[1])["compared_with"] == []
    assert "damaged.jsonnet:2:" in broken[2]
    assert "Markdown" in broken[2]
