import pickle
import re
from pathlib import Path

from segrelay.jsonnet.rendered import TemplateBroken

ROOT = Path(__file__).parents[3]
EXAMPLE = re.compile(r"```python\n(.*?)```", re.DOTALL)


def test_the_example_of_the_readme_prints_what_it_says(tmp_path, monkeypatch, capsys):
    found = EXAMPLE.search((ROOT / "jsonnet/README.md").read_text("utf-8"))
    monkeypatch.chdir(tmp_path)

    exec(found[1], {})  # noqa: S102 - our own document

    promised = re.findall(r"^print.*  # (.*)$", found[1], re.MULTILINE)
    assert capsys.readouterr().out.splitlines() == promised
    assert len(promised) == 2


def test_a_broken_template_survives_being_pickled():
    error = pickle.loads(pickle.dumps(TemplateBroken("t: no", "t", 1, 2)))  # noqa: S301

    assert (error.message, error.file, error.line, error.column) == ("t: no", "t", 1, 2)
