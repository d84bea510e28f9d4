"""The commands about templates, on files, in Redis and at Lytics."""

import json

import orjson
import pytest

from segrelay.producer.publish import Publisher
from segrelay.producer.wakeups import SilentWaker
from segrelay.templates import SHIPPED_FOLDER
from segrelay.worker.contract.redis.connection import connect
from segrelay.worker.contract.settings import load_settings
from tests.configuration import configuration, endpoint, trigger
from tests.rig import SandboxProcess
from tests.warm import WarmProcess

SAMPLE = SHIPPED_FOLDER / "samples" / "enter.json"
TEMPLATE = """local event = import 'lytemplates.libsonnet';
assert event.has('email') : 'no email';
{ users: [{ identifiers: { email: event.get('email') },
  attributes: { name: event.get('first_name'), age: event.get('last_name'), city: '' } }] }
"""


@pytest.fixture
def folder(written, redis_url):
    return written("vip.jsonnet", TEMPLATE, redis=redis_url)


def test_a_new_template_is_fit_gets_its_tests_and_overwrites_nothing(run, folder):
    assert run("new", "mine").exit_code == 0
    checked = run("check", "mine", "--strict")
    filled = run("test", "mine", "--update")
    tested = run("test", "mine")

    assert (checked.exit_code, filled.exit_code, tested.exit_code) == (0, 0, 0), checked.output
    for name in ("mine.ts", "mine.mjs", "mine.md"):
        assert "a template ends in .jsonnet, .js" in run("new", name).exception.message
    assert "there is a file already" in run("new", "mine").exception.message
    unknown = run("new", "other", "--from", "no-such")
    assert "insider/enter" in unknown.exception.message
    assert run("new", "v1.2", "--from", "insider/exit").exit_code == 0
    copied = (folder / "v1.2.jsonnet").read_text()
    assert copied == (SHIPPED_FOLDER / "insider/exit.jsonnet").read_text()
    listed = json.loads(run("list", "--json").stdout)["templates"]
    assert [row["triggers"] for row in listed] == [[], [], ["vip-enter"]]


def test_a_template_that_no_trigger_uses_is_rendered_with_the_settings_that_each_has(run, folder):
    (folder / "new.js").write_text(
        "function template(data) { return { [jobConfGet('audience_attribute')]: segSlug(data) } }"
    )

    shown = run("render", "new.js", SAMPLE, "--explain")

    assert "lytics_computed_attr" in shown.stdout
    assert "name one by --trigger" in shown.stderr


def test_a_case_that_fails_is_shown_as_a_difference(run, folder):
    run("test", "vip", "--update")
    cases = folder / "vip.case.json"
    cases.write_text(cases.read_text().replace('"name": "Ann"', '"name": "Bob"'))

    failed = run("test", "vip")

    assert failed.exit_code == 1
    assert '"name": "Bob"' in failed.output
    assert run("test", "vip", "--update").exit_code == 0
    assert run("test", "vip").exit_code == 0


def test_what_waits_is_compared_and_a_mistyped_field_is_named(run, folder):
    settings = load_settings()
    with connect(settings.redis.url) as client:
        Publisher(client, settings, waker=SilentWaker()).publish([SAMPLE.read_bytes()])
    (folder / "other.jsonnet").write_text(
        TEMPLATE.replace("first_name", "frst_name").replace("city: ''", "gender: 'F'")
    )

    differs = json.loads(run("diff", "vip", "other", "--waiting", "--json").stdout)
    checked = run("check", "other")

    assert differs["events"] == 1
    assert differs["sent"]["users[].attributes.gender"]["added"] == 1
    assert differs["sent"]["users[].attributes.name"]["removed"] == 1
    assert "Ann" not in str(differs)
    assert "other.jsonnet:4:34: warning:" in checked.output
    assert "did you mean first_name?" in checked.output


def test_a_version_that_lies_beside_the_file_is_compared_with_it(run, folder):
    (folder / "before.jsonnet").write_text(TEMPLATE.replace("city: ''", "city: 'Rome'"))

    of_file = run("diff", "before", "vip", "--events", SAMPLE, "--json")
    of_sample = run("diff", "before", "vip", "--json")
    unknown = run("diff", "no-such", "vip")

    assert list(json.loads(of_file.stdout)["sent"]) == ["users[].attributes.city"]
    assert json.loads(of_sample.stdout)["sent"] == json.loads(of_file.stdout)["sent"]
    assert "there is no such template" in unknown.exception.message
    cases = [{"event": json.loads(SAMPLE.read_text())}] * 2
    (folder / "before.case.json").write_text(json.dumps(cases))
    (folder / "mine.jsonnet").write_text(TEMPLATE)
    found = json.loads(run("diff", "mine", "before", "--json").stdout)
    assert found["events"] == len(cases), "no trigger uses them: the cases of either are compared"


def test_what_lytics_answers_with_200_although_it_failed_is_a_failure_and_one_of_several_files_too(
    run, folder, tmp_path, written
):
    with SandboxProcess(launch=WarmProcess) as sandbox:
        written("vip.jsonnet", TEMPLATE, lytics_url=sandbox.url)
        (folder / "vip.jsonnet").write_text(TEMPLATE.replace("'no email'", "'no entry'"))
        run("push", "vip")
        same = run("remote", "test", "vip", SAMPLE)
        payload = json.loads(SAMPLE.read_text())
        (folder / "vip.jsonnet").write_text("{ users: [] }")
        del payload["data"]["email"]
        (tmp_path / "p.json").write_text(json.dumps(payload))

        failed = run("remote", "test", "vip", tmp_path / "p.json")
    (folder / "vip.jsonnet").write_text(
        "local i = import 'insider.libsonnet'; { a: i.identifiers }"
    )
    refused = run("push", "vip")

    assert (same.exit_code, failed.exit_code) == (0, 1)
    assert "Lytics renders the same." in same.output
    assert "Lytics answers 200, but the template failed there" in failed.output
    assert "imports lib/insider.libsonnet" in refused.exception.message


def test_a_template_of_a_url_is_listed_with_its_trigger_and_the_version_of_all(
    folder, run, redis_url
):
    (folder / "url.jsonnet").write_text('"https://hooks.example.com/x"')
    told = trigger(
        "told", destination="hooks", template="vip.jsonnet", url={"template": "url.jsonnet"}
    )
    text = configuration(endpoint("hooks"), told, redis=redis_url, data_dir=f"{folder}/data")
    (folder.parent / "segrelay.toml").write_text(text)

    rows = {one["template"]: one for one in json.loads(run("list", "--json").stdout)["templates"]}

    assert rows["url.jsonnet"]["triggers"] == ["told"] == rows["vip.jsonnet"]["triggers"]
    assert rows["url.jsonnet"]["version"] == rows["vip.jsonnet"]["version"]


def test_a_path_to_a_template_is_its_name_too(run, folder, monkeypatch):
    monkeypatch.chdir(folder.parent)

    checked = run("check", "templates/vip.jsonnet", "--json")
    rendered = run("render", folder / "vip.jsonnet", SAMPLE)

    assert rendered.exception is None, (rendered.exception, rendered.stderr)
    assert [one["template"] for one in orjson.loads(checked.stdout)["templates"]] == ["vip.jsonnet"]
    assert (checked.exit_code, rendered.exit_code) == (0, 0)
    assert "there is no such file" in run("check", "other/vip.jsonnet").output
