"""The compiled form beside the engine: the repository's templates; `snippets.jsonnet` has more."""

from datetime import UTC, datetime
from pathlib import Path
from random import Random

import orjson
import pytest

from segrelay.jsonnet.compiled import AssertFailed, Compiled, Doubtful, compile_template
from segrelay.jsonnet.engines.failures import Failure
from segrelay.jsonnet.engines.rows_evaluator import Input, RowsEvaluator, rewrite
from segrelay.jsonnet.files import TemplateFolder, resolutions
from segrelay.templates import LYTEMPLATES, SHIPPED_FOLDER
from segrelay.worker.checks.preview import sample_profile
from segrelay.worker.contract.words import Direction
from tools import chaos
from tools.fuzz.__main__ import person

HERE = Path(__file__).parent
TEMPLATES = [
    *sorted(SHIPPED_FOLDER.rglob("*.jsonnet")),
    *sorted(Path(chaos.__file__).parent.glob("*.jsonnet")),
    HERE / "page_entrance.jsonnet",
]
LIBRARY = "local event = import 'lytemplates.libsonnet';\n"


def _compiled(path):
    made = compile_template(TemplateFolder(path.parent, LYTEMPLATES).bundle(path.name))
    assert isinstance(made, Compiled), made
    return made


def _profiles():
    now = datetime(2026, 11, 9, tzinfo=UTC)
    samples = [sample_profile(direction, now) for direction in Direction]
    random = Random(7)
    people = [{**samples[0], **person(random)} for _ in range(60)]
    return [*samples, *people, {}, {"segment_events": []}, {"segment_events": [None]}]


@pytest.mark.parametrize("path", TEMPLATES, ids=lambda path: path.name)
def test_a_template_of_the_repository_gives_the_same_bytes(path):
    made = _compiled(path)
    profiles = [orjson.dumps(profile) for profile in _profiles()]
    bundle = TemplateFolder(path.parent, LYTEMPLATES).bundle(path.name)
    engine = RowsEvaluator(rewrite(bundle), resolutions(bundle), LYTEMPLATES)
    events = [Input(profile, b"{}") for profile in profiles]
    same = 0

    for profile, theirs in zip(profiles, engine.evaluate(events, 50), strict=True):
        try:
            value = made.render(orjson.loads(profile), {})
            ours = orjson.dumps(value, option=orjson.OPT_SORT_KEYS)
        except Doubtful:
            continue
        except AssertFailed as failed:
            ours = Failure(failed.message.strip(), asserted=True)
            assert (theirs.message.strip(), theirs.asserted) == (ours.message, ours.asserted)
            continue
        assert ours.decode() == theirs
        same += 1

    assert same >= len(Direction) - 1


@pytest.mark.parametrize(
    "snippet", ["'34' % null", "'34' % event.get('nothing')", "'%s' % ['a', null]", "'x' % [null]"]
)
def test_a_null_for_which_a_format_has_no_code_is_an_error_of_the_engine(tmp_path, snippet):
    (tmp_path / "t.jsonnet").write_text(LIBRARY + snippet)
    made = _compiled(tmp_path / "t.jsonnet")

    with pytest.raises(Doubtful):
        made.render({"nothing": None}, {})
