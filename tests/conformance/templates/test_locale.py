"""A machine whose locale is not UTF-8 renders what every other machine renders."""

import json
import os
import subprocess
import sys

from tests.nightly import amount
from tests.waiting import allowed

ASCII = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
LOCALES = amount({}, nightly={"ISO-8859-1": {"PYTHONIOENCODING": "iso-8859-1"}}) | {"ASCII": ASCII}
TEMPLATE = """\
local event = import 'lytemplates.libsonnet';
if event.get('n') == 2 then error 'Größe' else { größe: event.get('größe') }
"""
PROGRAM = """\
import sys
from pathlib import Path

from segrelay.templates import LYTEMPLATES
from segrelay.jsonnet.engines.judge import judge, judges
from segrelay.jsonnet.files import TemplateFolder
from segrelay.jsonnet.isolated import render_isolated
from segrelay.jsonnet.rendered import Row

people = [f'{{"größe": "schön ☂", "n": {n}}}'.encode() for n in (1, 2)]
bundle = TemplateFolder(Path(sys.argv[1]), LYTEMPLATES).bundle("t.jsonnet")
rows = [Row(each, {"straße": "ß"}) for each in people]
results = render_isolated(bundle, rows, seconds=20, memory_bytes=2_000_000_000)
print(ascii([getattr(each, "body", each) for each in results]))
for engine in ("rjsonnet", *judges()):
    print(ascii(judge(engine, bundle, people, b"{}")))
"""


def said(folder, environment):
    (folder / "t.jsonnet").write_text(TEMPLATE.replace("größe:", "'größe':"), "utf-8")
    (folder / "program.py").write_text(PROGRAM, "utf-8")
    done = subprocess.run(
        [sys.executable, folder / "program.py", folder],
        env={**os.environ, **environment},
        capture_output=True,
        timeout=allowed(60),
        check=False,
    )
    assert done.stderr == b""
    return done.stdout.decode("ascii").splitlines()


def test_what_is_rendered_in_another_process_does_not_depend_on_the_locale(tmp_path):
    expected = said(tmp_path, {"PYTHONUTF8": "1"})
    body = json.dumps({"größe": "schön ☂"}, ensure_ascii=False, separators=(",", ":"))
    assert ascii(body.encode())[2:-1] in expected[0]

    found = {name: said(tmp_path, environment) for name, environment in LOCALES.items()}

    assert found == dict.fromkeys(LOCALES, expected)
