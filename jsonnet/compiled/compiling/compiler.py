"""Compiles a template to one Python function of a profile and the settings.

Only generated names, and constants as `repr` writes them, stand in the code: never a word of the
template. An expression can be compiled in three ways: as a value, as a handle (a value or a Lazy of
it), and deep: as the JSON value that leaves the template, which needs no laziness.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from segrelay.jsonnet.compiled.compiling.analysis import MANY, Analysis
from segrelay.jsonnet.compiled.compiling.binds import as_module, function_value, in_front, local
from segrelay.jsonnet.compiled.compiling.calls import called, looked_up, standard_value
from segrelay.jsonnet.compiled.compiling.emitter import (
    NO_FIELD,
    Binding,
    Code,
    Emitter,
    ExpressionCompiler,
    KnownFunction,
    Library,
    Module,
    Placed,
    Scope,
    Standard,
    Static,
    Variable,
    left_to_jsonnet,
    literal,
    parameter,
    taken,
)
from segrelay.jsonnet.compiled.compiling.literals import (
    array_of,
    comprehended,
    deep_object,
    literal_array,
    literal_object,
    object_of,
)
from segrelay.jsonnet.compiled.running import values
from segrelay.jsonnet.compiled.running.values import EXACT, number
from segrelay.jsonnet.files import Bundle, LibraryFunction
from segrelay.jsonnet.syntax import tree
from segrelay.jsonnet.syntax.tree import has_assert

_OUTERMOST: Final = {"std": Standard()}
_WRITTEN_OUT: Final = 2_000
"""The longest code of an imported field, in characters, that is repeated at each use of it."""


@dataclass(slots=True)
class Compiler:
    """Compiles the files of one template."""

    bundle: Bundle
    functions: Mapping[str, LibraryFunction] = field(init=False)
    emitter: Emitter = field(default_factory=Emitter)
    analysis: Analysis = field(default_factory=Analysis)
    _targets: dict[tuple[str, int], str] = field(init=False)
    _files: dict[str, str] = field(default_factory=dict)
    _modules: dict[str, Module | None] = field(default_factory=dict)
    _per_event: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.functions = self.bundle.library.functions()
        self._targets = {
            (name, found.at): target
            for name, file in self.bundle.files.items()
            for found, target in file.imports
        }

    def source(self) -> str:
        """Return the source of a module that defines `render`.

        Raises:
            OutsideSubset: Something is outside of what is compiled.
        """
        scope = Scope(self.bundle.root, _OUTERMOST)
        body = self._spine(self._tree_of(self.bundle.root), scope).text
        lines = [
            *self.emitter.lines,
            "def render(row, settings):",
            "    get = row.get",
            "    conf = settings.get",
            "    library = Lazy(lambda: library_of(row, settings))",
            *(f"    {line}" for line in _needed(self._per_event, body)),
            f"    return {body}",
        ]
        return "\n".join(lines) + "\n"

    # Files.

    def _tree_of(self, name: str) -> tree.Node:
        parsed = self.bundle.files[name].parsed
        assert parsed is not None  # what is imported as text is not asked for
        return parsed

    def _is_about_events(self, name: str, seen: tuple[str, ...] = ()) -> bool:
        """Return whether a file has to be evaluated for each event, itself or through another.

        It imports the library, or has an `assert`, whose failing is noted for an event.
        """
        if name == self.bundle.library.name:
            return True
        return name not in seen and (
            has_assert(self._tree_of(name))
            or any(
                self._is_about_events(target, (*seen, name))
                for found, target in self.bundle.files[name].imports
                if found.word == "import"
            )
        )

    def _file(self, name: str) -> str:
        """Return the variable of an imported file; a file not about events is evaluated once."""
        if name not in self._files:
            variable = self.emitter.fresh("m")
            self._files[name] = variable
            code = self.value(self._tree_of(name), Scope(name, _OUTERMOST))
            line = f"{variable} = Lazy(lambda: {code.text})"
            if self._is_about_events(name):
                self._per_event.append(line)
            else:
                self.emitter.lines.append(line)
        return self._files[name]

    def _module(self, name: str) -> Module | None:
        """Return an imported file as a module; None if it can't be compiled as one."""
        if name not in self._modules:
            self._modules[name] = None
            found = as_module(self, self._tree_of(name), Scope(name, _OUTERMOST))
            if found is not None:
                is_per_event = self._is_about_events(name)
                lines = self._per_event if is_per_event else self.emitter.lines
                lines += found[0]
                self._modules[name] = found[1]
        return self._modules[name]

    def module(self, node: tree.Node, scope: Scope) -> tuple[list[str], Module] | None:
        """Return an object's assignments and module; None if it can't be compiled as one."""
        if not isinstance(node, tree.Import):
            return as_module(self, node, scope)
        name = self._target(node, scope)
        if node.word != "import" or name == self.bundle.library.name:
            return None
        found = self._module(name)
        return None if found is None else ([], found)

    def _target(self, node: tree.Import, scope: Scope) -> str:
        return self._targets[scope.file, node.at]

    def _imported(self, node: tree.Import, scope: Scope) -> Code:
        target = self._target(node, scope)
        if node.word == "importstr":
            return literal(self.bundle.files[target].text)
        if target == self.bundle.library.name:
            return Code("library.get()", "object")
        return Code(f"{self._file(target)}.get()")

    # What is known without evaluating.

    def static(self, node: tree.Node, scope: Scope) -> Static | None:
        """Return the function, library or module that an expression is known to be, if any."""
        match node:
            case tree.Name(_, name):
                known = scope.names.get(name)
                if isinstance(known, Placed):
                    return self.static(known.node, known.scope)
                return None if isinstance(known, Variable) else known
            case tree.Import(_, "import"):
                return Library() if self._target(node, scope) == self.bundle.library.name else None
            case tree.Index(_, target, tree.Constant(_, str(key))):
                match self.static(target, scope):
                    case Library("") if key in self.functions:
                        return Library(key)
                    case Standard(""):
                        return Standard(key)
                match self._asked(target, key, scope):
                    case None | Variable():
                        return None
                    case Placed(inner, there):
                        return self.static(inner, there)
                    case known:
                        return known
        return None

    def _asked(self, target: tree.Node, key: str, scope: Scope) -> Binding | None:
        """Return the binding of a field whose object is known to be a module, else None."""
        module: Module | None = None
        if isinstance(target, tree.Name):
            known = scope.names.get(target.name)
            if isinstance(known, Placed):
                return self._asked(known.node, key, known.scope)
            module = known if isinstance(known, Module) else None
        elif isinstance(target, tree.Import) and target.word == "import":
            name = self._target(target, scope)
            module = None if name == self.bundle.library.name else self._module(name)
        if module is None:
            return None
        return module.fields.get(key, NO_FIELD)

    # An expression, in three ways.

    def handle(self, node: tree.Node, scope: Scope) -> Code:
        """Return code that gives the value of an expression, or a Lazy of it."""
        if isinstance(node, tree.Name):
            known = scope.names.get(node.name)
            if isinstance(known, Variable):
                code = known.code
                return Code(known.handle, code.kind, total=True)
            if isinstance(known, Placed):
                return self.handle(known.node, known.scope)
        if isinstance(node, tree.Index) and isinstance(node.key, tree.Constant):
            asked = self._asked(node.target, str(node.key.value), scope)
            if isinstance(asked, Variable):
                return Code(asked.handle, asked.code.kind, total=True)
        code = self.value(node, scope)
        if code.total:
            return code
        return Code(f"Lazy(lambda: {code.text})", code.kind, total=True)

    def truth(self, node: tree.Node, scope: Scope) -> Code:
        """Return code that gives the boolean value of an expression."""
        code = self.value(node, scope)
        if code.kind == "bool":
            return code
        return Code(f"boolean({code.text})", "bool")

    def deep(self, node: tree.Node, scope: Scope) -> str:
        """Return code that gives the whole JSON value of an expression, in new containers."""
        match node:
            case tree.If(_, condition, yes, no):
                other = "None" if no is None else self.deep(no, scope)
                test = self.truth(condition, scope).text
                return f"({self.deep(yes, scope)} if {test} else {other})"
            case tree.Local():
                return local(self, node, scope, self._deep_code, deep=True).text
            case tree.Assert(_, check, body):
                return checked(self, check, self._deep_code(body, scope), scope).text
            case tree.Array(_, items):
                return f"[{', '.join(self.deep(item, scope) for item in items)}]"
            case tree.ArrayOf(_, item):
                return array_of(self, node, scope, lambda inner: self._deep_code(item, inner)).text
            case tree.ObjectOf():
                found = object_of(self, node, scope, self.deep)
                if found is not None:
                    return found
            case tree.Object():
                made = deep_object(self, node, scope)
                if made is not None:
                    return made
            case tree.Name(_, name):
                known = scope.names.get(name)
                if isinstance(known, Placed):
                    return self.deep(known.node, known.scope)
            case tree.Index(_, target, tree.Constant(_, str(key))):
                asked = self._asked(target, key, scope)
                if isinstance(asked, Placed):
                    return self.deep(asked.node, asked.scope)
                if isinstance(asked, Variable) and asked.source and not scope.repeats:
                    # Written out, it needs neither a Lazy of each part nor a look at each.
                    text = self.deep(asked.source.node, asked.source.scope)
                    if len(text) <= _WRITTEN_OUT:
                        return text
        return self._manifested(node, scope)

    def _deep_code(self, node: tree.Node, scope: Scope) -> Code:
        return Code(self.deep(node, scope))

    def _manifested(self, node: tree.Node, scope: Scope) -> str:
        untouched = self._untouched(node, scope)
        code = self.value(node, scope) if untouched is None else untouched
        if code.kind in ("bool", "string", "null") or (code.constant and code.text.isdigit()):
            return code.text
        if code.kind in ("object", "array", "number"):
            return f"manifest({code.text})"
        name = self.emitter.fresh("v")
        is_whole = f"{name}.__class__ is int and {-EXACT} <= {name} <= {EXACT}"
        is_plain = f"({name} := {code.text}).__class__ is str or {name} is None or {is_whole}"
        return f"({name} if {is_plain} else manifest({name}))"

    def _untouched(self, node: tree.Node, scope: Scope) -> Code | None:
        """Return code that gives an element as its container holds it; None if it is no element."""
        match node:
            case tree.Index(_, target, tree.Constant(_, str(key))):
                if self._asked(target, key, scope) is not None:
                    return None
                shown = repr(key)
            case tree.Index(_, target, tree.Number(_, digits)) if digits.isdecimal():
                shown = str(int(digits))
            case _:
                return looked_up(self, node, scope)
        if self.static(node, scope) is not None:
            return None
        of = self.value(target, scope)
        return Code(f"{of.text}[{shown}]")

    def value(self, node: tree.Node, scope: Scope) -> Code:
        """Return code that gives the value of an expression, without evaluating its elements."""
        match node:
            case tree.Constant(_, given):
                return literal(given)
            case tree.Number(_, text):
                return literal(values.number(float(text)))
            case tree.Name(_, name):
                return self._variable(node, name, scope)
            case tree.Self():
                return Code(scope.this, "object", total=True)
            case tree.Dollar():
                return Code(scope.outermost, "object", total=True)
            case tree.Array(_, items):
                return literal_array(self, items, scope)
            case tree.ArrayOf(_, item):
                return array_of(self, node, scope, lambda inner: self.handle(item, inner))
            case tree.Object():
                return literal_object(self, node, scope)
            case tree.ObjectOf():
                return Code(comprehended(self, node, scope), "object")
            case tree.Index() | tree.Call():
                return self._access(node, scope)
            case tree.Function():
                return Code(function_value(self, node, scope), "function", total=True)
            case tree.Local():
                return local(self, node, scope, self.value, deep=False)
            case tree.If():
                return choice(self, node, scope)
            case tree.Assert(_, check, body):
                return checked(self, check, self.value(body, scope), scope)
            case tree.Error():
                return Code(left_to_jsonnet("an `error` of the template"))
            case tree.Import():
                return self._imported(node, scope)
            case tree.Unary() | tree.Binary() | tree.Slice():
                return operation(self, node, scope)
            case tree.SuperIndex(_, key):
                return Code(f"{scope.base}[{self.value(key, scope).text}]")
            case tree.InSuper(_, key):
                return Code(f"{scope.base}.has({self.value(key, scope).text})", "bool")
        raise AssertionError(node)

    # Parts.

    def _variable(self, node: tree.Node, name: str, scope: Scope) -> Code:
        known = scope.names[name]
        if isinstance(known, Standard | Library):
            return self._static_value(node, scope)
        return self._bound(known)

    def _bound(self, known: Binding) -> Code:
        match known:
            case Variable(code):
                return code
            case Placed(inner, there):
                return self.value(inner, there)
            case KnownFunction():
                self.emitter.calls += 1
                return Code(known.value, "function", total=True)
        raise AssertionError(known)

    def _static_value(self, node: tree.Node, scope: Scope) -> Code:
        match self.static(node, scope):
            case Library(""):
                return Code("library.get()", "object")
            case Library(name):
                return Code(f"function_of({name!r}, row, settings)", "function")
            case Standard(name):
                return standard_value(self, name, scope, node.at)
            case KnownFunction() as known:
                return self._bound(known)
        raise AssertionError(node)

    def _access(self, node: tree.Index | tree.Call, scope: Scope) -> Code:
        if isinstance(node, tree.Index) and self.static(node, scope) is not None:
            return self._static_value(node, scope)
        untouched = self._untouched(node, scope)
        if untouched is not None:
            name = self.emitter.fresh("v")
            text = taken(name, untouched.text)
            return Code(text, total=untouched.total)
        if isinstance(node, tree.Call):
            return called(self, node, scope)
        if isinstance(node.key, tree.Constant):
            known = self._asked(node.target, str(node.key.value), scope)
            if known is not None:
                return self._bound(known)
        target, key = self.value(node.target, scope), self.value(node.key, scope)
        return Code(f"index({target.text}, {key.text})")

    def _spine(self, node: tree.Node, scope: Scope) -> Code:
        """Return the outermost expression's code, where a failed `assert` ends the evaluation."""
        match node:
            case tree.Local():
                return local(self, node, scope, self._spine, deep=True)
            case tree.If(_, condition, yes, no):
                test = self.truth(condition, scope).text
                other = "None" if no is None else self._spine(no, scope).text
                return Code(f"({self._spine(yes, scope).text} if {test} else {other})")
            case tree.Assert(_, check, body):
                test = self.truth(check.condition, scope).text
                message = said(self, check, scope)
                return Code(f"({self._spine(body, scope).text} if {test} else failed({message}))")
        return Code(self.deep(node, scope))

    def function(self, node: tree.Function, scope: Scope) -> str:
        """Return the code of a Python function whose arguments are handles."""
        names = {each.name: self.emitter.fresh("p") for each in node.parameters}
        scope = replace(scope, repeats=True).having({n: parameter(v) for n, v in names.items()})
        first: list[str] = []
        for each in node.parameters:
            name = names[each.name]
            if each.default is not None:
                code = self.value(each.default, scope)
                # A default may refer to a parameter behind it: it is looked at later.
                default = code.text if code.constant else f"Lazy(lambda: {code.text})"
                first.append(f"({name} := ({default} if {name} is MISSING else {name}))")
        for each in node.parameters:
            is_sure = self.analysis.surely_uses(node.body, each.name, deep=False)
            if is_sure and self.analysis.uses(node.body, each.name) >= MANY:
                name = names[each.name]
                first.append(f"({name} := {parameter(name).code.text})")
                scope = scope.having({each.name: Variable(Code(name, total=True), name)})
        before = self.emitter.calls
        body = self.value(node.body, scope).text
        if self.emitter.calls > before:
            body = f"({body} if tick() else None)"
        return f"(lambda {', '.join(names.values())}: {in_front(first, body)})"


_ASSIGNED: Final = re.compile(r"\(?([a-z][0-9]+) :?= ")
_GENERATED: Final = re.compile(r"\b[a-z][0-9]+\b")


def _needed(assigned: Sequence[str], body: str) -> list[str]:
    """Return the assignments that an expression needs, itself or through others.

    A template uses few of the fields of a library that it imports.
    """
    lines = {found[1]: line for line in assigned if (found := _ASSIGNED.match(line))}
    needed, looked_at = set(_GENERATED.findall(body)), set[str]()
    while more := needed - looked_at:
        looked_at |= more
        needed.update(*(_GENERATED.findall(lines[name]) for name in more & lines.keys()))
    return [line for name, line in lines.items() if name in needed]


_ARITHMETIC: Final = {"-": "minus", "*": "times", "/": "divided", "%": "remainder"}
_SIGNS: Final = {"-": "negated", "+": "numeric"}
_BITS: Final = "an operator on bits"
_PLAIN: Final = frozenset({"number", "string"})
"""Kinds of values: Python orders two values of one of these kinds as Jsonnet does."""
_ORDER: Final = {
    "<": "less({left}, {right})",
    ">": "less({right}, {left})",
    "<=": "(not less({right}, {left}))",
    ">=": "(not less({left}, {right}))",
}


def operation(
    compiles: ExpressionCompiler, node: tree.Unary | tree.Binary | tree.Slice, scope: Scope
) -> Code:
    """Return the code of an operator or a slice."""
    match node:
        case tree.Unary(_, operator, operand):
            return _unary(compiles, operator, operand, scope)
        case tree.Slice(_, target, start, end, step):
            given = (target, start, end, step)
            parts = ["None" if part is None else compiles.value(part, scope).text for part in given]
            return Code(f"sliced({', '.join(parts)})")
        case tree.Binary(_, "+"):
            return _sum(compiles, node, scope)
        case tree.Binary(_, "&&" | "||" as operator, left, right):
            one, other = compiles.truth(left, scope), compiles.truth(right, scope)
            word = "and" if operator == "&&" else "or"
            return _both(f"({one.text} {word} {other.text})", "bool", one, other)
    one, other = compiles.value(node.left, scope), compiles.value(node.right, scope)
    match node.operator:
        case "-" | "*" | "/" | "%":
            kind = "any" if node.operator == "%" else "number"
            run = f"{_ARITHMETIC[node.operator]}({one.text}, {other.text})"
            return Code(run, kind)
        case "<" | ">" | "<=" | ">=" if one.kind == other.kind and one.kind in _PLAIN:
            return _both(f"({one.text} {node.operator} {other.text})", "bool", one, other)
        case "<" | ">" | "<=" | ">=":
            text = _ORDER[node.operator].format(left=one.text, right=other.text)
            return Code(text, "bool")
        case "==" | "!=":
            return _equality(one, other, negated=node.operator == "!=")
        case "in":
            run = f"has_field({one.text}, {other.text})"
            return Code(run, "bool")
    return Code(left_to_jsonnet(_BITS))


def _unary(compiles: ExpressionCompiler, operator: str, operand: tree.Node, scope: Scope) -> Code:
    if operator == "!":
        test = compiles.truth(operand, scope)
        return Code(f"(not {test.text})", "bool", total=test.total)
    if operator == "~":
        return Code(left_to_jsonnet(_BITS))
    code = compiles.value(operand, scope)
    if isinstance(operand, tree.Number) and operator == "-":
        return literal(number(-float(operand.text)))
    run = _SIGNS[operator]
    return Code(f"{run}({code.text})", "number")


def _sum(compiles: ExpressionCompiler, node: tree.Binary, scope: Scope) -> Code:
    """Return the code of a chain of `+`: evaluated from the left, without nesting."""
    parts: list[Code] = []
    left: tree.Node = node
    while isinstance(left, tree.Binary) and left.operator == "+":
        parts.append(compiles.value(left.right, scope))
        left = left.left
    parts.append(compiles.value(left, scope))
    kind = "string" if any(part.kind == "string" for part in parts[-2:]) else "any"
    name = "plus" if len(parts) == 2 else "plus_all"  # noqa: PLR2004
    text = f"{name}({', '.join(part.text for part in reversed(parts))})"
    return Code(text, kind)


def _both(text: str, kind: str, one: Code, other: Code) -> Code:
    return Code(text, kind, total=one.total and other.total)


def _equality(one: Code, other: Code, *, negated: bool) -> Code:
    if one.constant:
        one, other = other, one
    total = one.total and other.constant
    if other.constant and other.kind == "string":
        text = f"({one.text} {'!=' if negated else '=='} {other.text})"
    elif other.constant and not one.constant and other.kind in ("null", "bool"):
        text = f"({one.text} {'is not' if negated else 'is'} {other.text})"
    elif one.kind == other.kind and one.kind in _PLAIN:
        text = f"({one.text} {'!=' if negated else '=='} {other.text})"
    else:
        text = f"{'(not ' if negated else '('}equal({one.text}, {other.text}))"
        total = False
    return Code(text, "bool", total=total)


def choice(compiles: ExpressionCompiler, node: tree.If, scope: Scope) -> Code:
    """Return the code of a condition with its branches."""
    test, one = compiles.truth(node.condition, scope), compiles.value(node.yes, scope)
    other = literal(None) if node.no is None else compiles.value(node.no, scope)
    return Code(
        f"({one.text} if {test.text} else {other.text})",
        one.kind if one.kind == other.kind else "any",
        total=one.total and test.total and other.total,
    )


def checked(compiles: ExpressionCompiler, check: tree.Check, body: Code, scope: Scope) -> Code:
    """Return code that notes an `assert` that fails, and goes on.

    Jsonnet might meet another fault first; if there is no other, the assert is what it meets.
    """
    compiles.emitter.calls += 1  # nobody evaluates it before Jsonnet would
    test = compiles.truth(check.condition, scope).text
    return Code(f"({body.text} if {test} or failing({said(compiles, check, scope)}) else None)")


def said(compiles: ExpressionCompiler, check: tree.Check, scope: Scope) -> str:
    """Return the code of the message of an `assert`; "" where it has none."""
    message = check.message
    return "" if message is None else f"string({compiles.value(message, scope).text})"
