"""The compiled form beside the engines: the repository's templates, and a table of snippets."""

import json
from datetime import UTC, datetime
from pathlib import Path
from random import Random

import orjson
import pytest

from segrelay.jsonnet.compiled import AssertFailed, Compiled, Doubtful, compile_template
from segrelay.jsonnet.engines.failures import Failure
from segrelay.jsonnet.engines.judge import judge, judges
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


SNIPPETS = r"""
-7 % 3
[2 * -0 == 0, '' + 2 * -0, 1e21 > 1e20, 1e-7 < 1]
1e15 + 1
9007199254740993
0.1 + 0.2
1 / 3
-1.5e-2
1e18
[1 < 2, 2 <= 2, 'a' < 'b', 'B' > 'a', 'é' > 'z']
[1 == 1.0, 1 == true, null == null, 'a' == 'a', [1] == [1], {} == {}, [] == {}]
[1 != 2, '1' != 1, { a: 1 } != { a: 2 }]
{ a: 1, b: self.a + 1, c: $.b } + { a: 10 }
({ a: 1, f(x): x + self.a } + { a: 5 }).f(1)
{ local k = 'z', [k + 'x']: k for k in ['a', 'b'] }
{ [if false then 'gone']: 1, [if true then 'here']: 2 }
{ a:: { b: 1 }, c: self.a.b }
{ a: 1 } { b: super.a, c: 'a' in super, d: 'q' in super }
local o = { a: 1, b: { c: $.a } }; o + { a: 2 }
{ 'x y': 1, "it's": 2, 'é': 3 }['x y']
local a = [1, 2, 3]; [a[0], a[2], a[1:], a[:2], a[::2], a[1:2]]
'hello'[1:4] + 'añ'[1]
[[x, y] for x in [1, 2] for y in ['a', 'b'] if x == 1 || y == 'b']
local f(x, y=x * 2) = [x, y]; [f(1), f(1, 5), f(y=1, x=2)]
local f = function(x) function(y) x + y; f(1)(2)
local even(n) = n == 0 || odd(n - 1), odd(n) = n != 0 && even(n - 1); [even(10), odd(10)]
local a = { b: a.c, c: 1 }; a
if 1 > 2 then 'no'
(assert true : 'no'; 1)
local lazy = error 'never'; std.length([lazy])
'%s %s %s %s' % ['a', 1, null, [1, { a: 'x' }]]
'%d|%5d|%-5d|%05d|%+d|% d' % [1, 2, 3, -4, 5, 6]
'100%%' % []
'%s' % 'one'
'%5s|%-5s|' % ['ab', 'cd']
|||
  block %s
    indented
|||
@'verbatim \ ''quoted'''
'\u00e9 \t \ud83d\ude00'
std.length('😀é') + std.length([1]) + std.length({ a: 1 }) + std.length(function(a, b) 1)
[std.isFunction(std.length), std.isString(1), std.isNumber('1')]
[std.parseInt('-12'), std.parseInt('007')]
[std.char(8364), std.substr('hi', 5, 2)]
[std.stripChars(' xay x', ' x'), std.lstripChars('xxa', 'x')]
std.split('abc', 'x')
[std.join(', ', ['a', null, 'b']), std.join([0], [[1], [2, 3]]), std.join('', [])]
[std.repeat('ab', 3), std.repeat([1, 2], 2), std.repeat('a', 0)]
[std.manifestJsonMinified({ b: 1, a: [true, null, 'x'] }), std.toString({ a: 'x' })]
std.map(function(c) c + c, 'ab')
std.flatMap(function(c) c + '-', 'ab')
std.range(3, 1)
[std.flattenArrays([[1], [], [2, [3]]]), std.reverse([1, 2, 3])]
[std.all([true, true]), std.any([false, true]), std.all([]), std.any([]), std.sum([1, 2, 3])]
[std.sort([3, 1, 2]), std.sort(['b', 'a']), std.sort([{ k: 2 }, { k: 1 }], function(x) x.k)]
[std.get({ a: 1 }, 'a'), std.get({}, 'a'), std.get({}, 'a', 5), std.get({ a:: 1 }, 'a', 5, false)]
['%5.1f|%-6.2f|%+.0f' % [2.25, 1.5, 3], '%.3d' % 7]
'%#.0f|%.2F' % [3.4, 0.125]
{ assert self.a == 1 : 'no', a: 1, b: self.a } + { c: 2 }
local o = { assert std.length(self.list) > 0, list:: [1], n: self.list[0] }; o.n
std.round(-1.2)
[event.get('email'), event.get('none'), event.get('none', 'd')]
[event.has('email'), event.has('none')]
[event.get('n') + 1, event.get('big') == event.get('big') + 1, event.get('f') + '']
local get = event.get; [get(f) for f in ['email', 'n']]
std.map(event.get, ['email', 'none'])
local e = event; { a: e.get('map').x, b: e.has('x', e.get('map')) }
[event.sha1('a'), event.sha256(1), event.isValidSha1(event.sha1('a')), event.enum('a', ['b'], 'c')]
[event.jobConfGet('s'), event.jobConfGet('none', 1), event.profileFieldFromConfig('s', 2)]
[event.notNull(null, 1), event.slugForEvent(event.get('segment_events')[0]), event.segEvIsEnter({})]
{ e: event }
{ users: [{ [if v != null then k]: v for k in ['email', 'none'] for v in [event.get(k)] }] }
local norm(s) = std.asciiLower(std.trim(s)); norm(event.get('email'))
{ tags: [t.name for t in event.get('tags') if std.objectHas(t, 'name')] }
local f(x) = 1; [f(error 'no'), f(2) tailstrict, { a: 1, b: error 'no' }.a]
local g(x) = error 'no'; [std.map(g, [1, 2]) == [], std.length(std.map(g, [1, 2]))]
[1, error 'no'] == [2, error 'no']
[true || error 'no', false && error 'no', std.get({ a: error 'no' }, 'b', 1)]
local f = std.trace; [f('x', 1), std.length([std.trace('x', error 'no')]), f(rest=2, str='x')]
local a = b, b = 1; local f(x, y=x) = y; local g(x=y, y=3) = x; [a, f(2), g()]
local o = { f(x): x }; [o.f(3) tailstrict, std.get({ a: 1 }, 'a', 2) tailstrict]
[std.length([1]) tailstrict, { [if false then 'a']: error 'no' }]
{ a: 1 } + { ['a']+: 2 }
{ a: { x: 1 } } + { ['' + 'a']+: { y: 2 }, [null]+: error 'no', ['b']+: 1 }
[{ [k]: 1 } + { [k + '']+: n } for k in ['a', 'b'] for n in [2]]
local f(k) = { [k]: 1 } + { [k + '']+: 2 }; [f('a'), f('b')]
{ [k]: if k == 'a' then 1 else self.a + 1 for k in ['a', 'b'] }
{ ['x' + k]: $.x2 + k for k in [2] } + { x2: 'y' }
{ ['x' + k]: if k == 1 then $.x2 else k for k in [1, 2] }
{ a: 1, b: 1 } + { [k]: super[k] + 1 for k in ['a'] }
{ o: { [k]: $.n for k in ['a'] }, n: 5 }
{ local v = k + self.n, [k]: if k == 'n' then 'm' else v for k in ['n', 'a'] }
{ [if k > 1 then 'a' + k]: std.length(self) for k in [1, 2, 3] }
[1 + 0.5, 4 / 2, '' + 4 / 2, '' + -0, std.toString(0 * -1), 1e3 + '']
[std.ceil(-0.5) + '', 9007199254740993 == 9007199254740992]
[0 == false, [1] == [true], null == false, { a: [1, { b: 2 }] } == { a: [1, { b: 2.0 }] }]
[{ a: 1, h:: 2 } == { a: 1 }, '￿' < '😀', std.asciiUpper('aßé')]
['%s-%05d-%-3s|%%' % ['x', -42, 'y'], '%(a)s' % { a: [1, 'x', null] }]
[{ a+: { y: 2 } }, { a: 1 } + { a: super.a + 1 } + { a: super.a + 1 }]
[{ a:: 1 } + { a: 2 }, { a:: 1 } + { a::: 2 }, { a: 1 } + { a:: 2 }]
[{ local x = self.a, a: 1, b: x } + { a: 2 }, ({ b: 'a' in super } { a: 'a' in super }).a]
[(function(x, y=2) x + y)(y=1, x=5), [f() for f in [function() x for x in [1, 2, 3]]]]
local std = { length(x): 'mine' }; std.length('')
[1, 2, 3, 4][1:4:2]
"""


def _snippets():
    """Split at lines that begin a snippet; a text block goes on to its end."""
    found = []
    for line in SNIPPETS.strip().splitlines():
        if found and found[-1].count("|||") == 1:
            found[-1] += "\n" + line
        else:
            found.append(line)
    return found


PROFILE = {
    "email": " Ann@Example.com ",
    "n": 3.0,
    "big": 2**53,
    "f": 2.0,
    "list": [1, 2],
    "map": {"x": None},
    "tags": [{"name": "a"}, {}],
    "_segments": ["news"],
    "segment_events": [{"event": "enter", "slug": "vip", "id": "1"}],
}


def _text(value):
    """Return a value as JSON, which tells 1 from true and from 1.0."""
    return json.dumps(value, sort_keys=True)


def test_snippets_mean_the_same_to_all(tmp_path):
    snippets = _snippets()
    (tmp_path / "t.jsonnet").write_text(LIBRARY + "[\n" + ",\n".join(snippets) + "\n]")
    settings = {"s": "email"}
    ours = _compiled(tmp_path / "t.jsonnet").render(PROFILE, settings)
    bundle = TemplateFolder(tmp_path, LYTEMPLATES).bundle("t.jsonnet")

    for engine in ("rjsonnet", *judges()):
        [said] = judge(engine, bundle, [orjson.dumps(PROFILE)], orjson.dumps(settings))
        assert isinstance(said, str), (engine, said)
        for snippet, mine, other in zip(snippets, ours, json.loads(said), strict=True):
            assert _text(mine) == _text(other), (engine, snippet)


@pytest.mark.parametrize(
    "snippet", ["'34' % null", "'34' % event.get('nothing')", "'%s' % ['a', null]", "'x' % [null]"]
)
def test_a_null_for_which_a_format_has_no_code_is_an_error_of_the_engine(tmp_path, snippet):
    (tmp_path / "t.jsonnet").write_text(LIBRARY + snippet)
    made = _compiled(tmp_path / "t.jsonnet")

    with pytest.raises(Doubtful):
        made.render({"nothing": None}, {})
