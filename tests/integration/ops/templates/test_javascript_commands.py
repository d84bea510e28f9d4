"""The commands about templates, for templates in JavaScript."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from segrelay.ops.main import app
from segrelay.templates import SHIPPED_FOLDER
from segrelay.worker.errors import UsageWrong
from tests.rig import SandboxProcess
from tests.warm import WarmProcess

SAMPLE = SHIPPED_FOLDER / "samples" / "enter.json"
PAGE = Path(__file__).parents[3] / "conformance/templates/page_entrance.js"
TEMPLATE = """function template(data) {
  if (!data.email) return null;
  return { users: [{ identifiers: { email: data.email },
    attributes: { name: data.first_name, age: data.last_name, city: "" } }] };
}
"""


@pytest.fixture
def place(written):
    return written("vip.js", TEMPLATE)


@pytest.mark.usefixtures("place")
def test_a_template_is_checked_rendered_and_explained_by_its_name(run):
    checked = run("check", "vip", "--json")
    rendered = run("render", "vip", SAMPLE, "--json")
    explained = run("render", "vip", SAMPLE, "--trigger", "vip-enter", "--explain")

    [report] = json.loads(checked.stdout)["templates"]
    assert (report["template"], report["language"], report["fit"]) == ("vip.js", "JavaScript", True)
    assert (report["compiled"], report["findings"]) == (False, [])
    refused = run("new", "begin.js", "--from", "insider/enter")
    assert isinstance(refused.exception, UsageWrong), "a shipped template is no beginning"
    [document] = json.loads(rendered.stdout)
    assert document["sent"]["users"][0]["attributes"] == {"name": "Ann"}
    assert document["body"]["users"][0]["attributes"]["age"] == "Example"
    assert "users[0].attributes.city is left out: it is empty" in explained.output
    assert "users[0].attributes.age is left out: it is not valid" in explained.output


@pytest.mark.usefixtures("place")
@pytest.mark.parametrize("api", ["insider", "http"])
@pytest.mark.parametrize("name", ["begin.js", "begin.jsonnet"])
def test_a_new_template_is_fit(run, api, name):
    written = run("new", name, "--api", api)
    checked = run("check", "begin", "--strict")
    listed = run("list", "--json")

    assert (written.exit_code, checked.exit_code) == (0, 0), checked.output
    assert f"{name}: fit" in checked.output
    assert checked.output.count(": rendered") == 3
    assert ("compiled" in checked.output) == (name == "begin.jsonnet")
    rows = {row["template"]: row for row in json.loads(listed.stdout)["templates"]}
    assert rows["vip.js"]["triggers"] == ["vip-enter"]
    assert len(rows["vip.js"]["version"]) == 12


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("function template(data) {\n  retrun 1;\n}", "vip.js:2:10: error: SyntaxError: expecting"),
        ("function template(data) {\n  return data.a.b;\n}", "vip.js:2:1: error: it fails for"),
        ("function render(data) {}", "vip.js: error: defines no function `template`"),
        (PAGE.read_text().replace("data._uid", "data.fist_name"), "did you mean first_name?"),
        (PAGE.read_text(), "vip.js:46:9: warning: not_append: true overwrites"),
        ("function template(data) { return null; }", "no sample renders"),
        (
            'function template(data) { return { ly_template_url: "x", ly_template_body: {} }; }',
            "ly_template_url",
        ),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named_with_its_place(run, place, source, said):
    (place / "vip.js").write_text(source)

    checked = run("check", "vip")

    assert said in checked.output + checked.stderr


def test_the_configuration_is_checked_with_a_template_in_javascript(place, tmp_path):
    def check():
        checked = CliRunner().invoke(app, ["config", "check"])
        return checked.exit_code, " ".join((checked.output + checked.stderr).split())

    assert check()[0] == 0
    (place / "vip.js").write_text("function template(data) { return boom; }")
    assert "vip.js:1: ReferenceError: boom is not defined" in check()[1]
    (place / "vip.js").write_text("function template(data { }")
    code, said = check()
    assert (code, "vip.js:1:" in said) == (2, True)
    (place / "vip.ts").write_text("export {}")
    config = tmp_path / "segrelay.toml"
    config.write_text(config.read_text().replace("vip.js", "vip.ts"))
    code, said = check()
    assert (code, "vip.ts: ends in .ts; a template is written in Jsonnet" in said) == (2, True)


def test_a_template_is_pushed_as_js1_and_tried_at_lytics(run, place, written):
    with SandboxProcess(launch=WarmProcess) as sandbox:
        written("vip.js", TEMPLATE, lytics_url=sandbox.url)
        created = run("push", "vip", "--json")
        replaced = run("push", "vip", "--json")
        tried = run("remote", "test", "vip", SAMPLE)
        (place / "vip.js").write_text(TEMPLATE.replace('city: ""', "city: boom"))
        differs = run("remote", "test", "vip", SAMPLE)
        (place / "vip.jsonnet").write_text("{ users: [{ identifiers: { email: 'a' } }] }")
        refused = run("push", "vip.jsonnet")

    assert [json.loads(each.stdout)["created"] for each in (created, replaced)] == [True, False]
    assert (tried.exit_code, "renders the same" in tried.output) == (0, True)
    assert "Lytics renders it; here it is failed" in differs.output
    assert "of the type js1, and this one is jsonnet" in refused.exception.message
