import pickle
import re
from pathlib import Path

import segrelay.jsonnet as face

ROOT = Path(__file__).parents[3]
EXAMPLE = re.compile(r"```python\n(.*?)```", re.DOTALL)


def test_every_name_of_the_face_is_there():
    assert [name for name in face.__all__ if not hasattr(face, name)] == []


def test_the_example_of_the_readme_prints_what_it_says(tmp_path, monkeypatch, capsys):
    found = EXAMPLE.search((ROOT / "jsonnet/README.md").read_text("utf-8"))
    monkeypatch.chdir(tmp_path)

    exec(found[1], {})  # noqa: S102 - our own document

    promised = re.findall(r"^print.*  # (.*)$", found[1], re.MULTILINE)
    assert capsys.readouterr().out.splitlines() == promised
    assert len(promised) == 2


def test_a_broken_template_survives_being_pickled():
    error = pickle.loads(pickle.dumps(face.TemplateBroken("t: no", "t", 1, 2)))  # noqa: S301

    assert (error.message, error.file, error.line, error.column) == ("t: no", "t", 1, 2)
