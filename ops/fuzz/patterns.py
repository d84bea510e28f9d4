"""Patterns of random expressions, by the type that they yield.

Each pattern has holes between « and »: `«number»` is an expression of a type, or sometimes of
another one, `«number!»` surely of this type, `«number0»` a literal; of several words one is chosen.
A hole may also name another method of the grammar, such as `«slice»`. Repeated patterns are chosen
more often.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

LIBRARY_CALLS: Final[Mapping[str, Sequence[str]]] = {
    "string": (
        "event.get(«field», '')",
        "event.segSlug()",
        "event.sha256(«string»)",
        "event.sha1(«any»)",
        "event.get('segment_events')[0].event",
        "event.enum(«string», ['a', 'b', 'vip'], 'a')",
        "event.jobConfGet('setting', «string»)",
        "event.notNull(event.get(«field»), «any»)",
        "event.profileFieldFromConfig('field', «any»)",
        "event.validatedEnum('setting', ['a', 's'], «string»)",
    ),
    "bool": (
        "event.has(«field»)",
        "event.has('a', «object»)",
        "event.isEnter()",
        "event.isExit()",
        "event.inSeg(«string»)",
        "event.isValidSha1(«string»)",
        "event.segEvIsEnter(event.get('segment_events')[0])",
    ),
    "number": ("event.get('age')", "event.get('age', 0)", "std.length(event.get('tags'))"),
    "array": ("event.get('tags', [])", "event.get('rows')", "event.get('_segments', [''])"),
    "object": ("event.get('map')", "event.get('segment_events')[0]", "event"),
}
NUMBERS: Final = (
    *("(«number» «+ + - - * / %» «number»)",) * 3,
    "(-«number»)",
    "std.length(«any»)",
    "std.«abs sign floor ceil round sqrt isEven»(«number»)",
    "std.«max min pow modulo»(«number», «number»)",
    "std.«parseInt codepoint parseHex»(«string!»)",
    "std.parseInt(«string!»)",
    "std.«foldl foldr»(function(x, y) x «+ -» y, «array!», «number»)",
    "std.count(«array!», «any»)",
    "std.clamp(«number», «number», «number»)",
    "std.«sum minArray maxArray»(«array!»)",
    "(«number» «& | ^ << >>» «number»)",
    "(~«number»)",
    "std.«log exp»(«number»)",
    "std.mod(«number», «number»)",
)
STRINGS: Final = (
    *("(«string» + «any»)",) * 2,
    "(«any» + «string»)",
    "std.«toString type manifestJsonMinified»(«any»)",
    "std.manifestJsonEx(«any», '  ')",
    "std.escapeString«Json Python Bash Dollars XML»(«any»)",
    "std.«asciiUpper asciiLower trim md5 sha256 base64 base64Decode»(«string»)",
    "std.substr(«string», «number0», «number0»)",
    "std.join(«string», «array!»)",
    "std.strReplace(«string», «string», «string»)",
    *("«format»",) * 2,
    "std.«stripChars lstripChars rstripChars»(«string», «string»)",
    "«string»[«number0»]",
    "«string»«slice»",
    "std.char(«65 97 233 128512 10»)",
    "std.repeat(«string», «0 1 2 3»)",
    "std.lines(«array!»)",
)
CONDITIONS: Final = (
    *("(«any» «== !=» «any»)",) * 2,
    "(«number» «< > <= >=» «number»)",
    "(«string» «< > <= >=» «string»)",
    "(«array» «< > <= >=» «array»)",
    *("(«bool» «&& ||» «bool»)",) * 2,
    "(!«bool»)",
    "(«string0» in «object»)",
    "std.member(«array», «any»)",
    "std.«startsWith endsWith equalsIgnoreCase»(«string!», «string0»)",
    "std.is«String Number Boolean Object Array Function»(«any»)",
    "std.«objectHas objectHasAll»(«object!», «string0»)",
    "std.isEmpty(«string!»)",
    "std.«all any»([«bool», «bool»])",
    "(«any» == «null true 1»)",
    "(«any» == «string0»)",
    "std.setMember(«string0», std.set(«array!»))",
)
ARRAYS: Final = (
    *("«listed»",) * 3,
    *("«comprehension»",) * 3,
    "(«array» + «array»)",
    "«array»«slice»",
    "std.map(«lambda_», «array»)",
    "std.filter(function(x) «predicate», «array»)",
    "std.split(«string!», «string0»)",
    "std.splitLimitR(«string!», «string0», «-1 0 1 2»)",
    "std.range(«0 1 2», «0 1 2 3 4 5»)",
    "std.«objectFields objectValues objectFieldsAll»(«object»)",
    "std.«sort uniq set reverse flattenArrays»(«array»)",
    "std.«setUnion setInter setDiff»(std.set(«array»), std.set(«array»))",
    "std.flatMap(function(x) [x, «any»], «array»)",
    "std.mapWithIndex(function(i, x) [i, «any»], «array»)",
    "std.makeArray(«0 1 2 3», «lambda_»)",
    "std.find(«any», «array»)",
    "std.sort(«array», «lambda_»)",
    "std.stringChars(«string!»)",
)
OWN: Final = (
    "std.length(self)",
    "std.objectFields(self)",
    "std.objectHas($, 'a')",
    "'a' in super",
    "(if 'b' in super then super.b else 1)",
)
"""Expressions about the object in which they stand, which look at no field of it."""
OBJECTS: Final = (
    "(«object» + «object»)",
    "«object_comprehension»",
    "std.mapWithKey(function(k, x) «any», «object»)",
    "std.prune(«object»)",
    "std.mergePatch(«object», «object»)",
    "(«object» «literal»)",
)
