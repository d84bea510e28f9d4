"""Analysis of how often expressions use a variable, and whether they surely do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from segrelay.jsonnet.syntax import tree
from segrelay.jsonnet.syntax.tree import Scoped, VariableNames, children

MANY = 2
"""Number of uses counted for a use in a function or a loop, which may be repeated."""


@dataclass(slots=True)
class Analysis:
    """Remembered facts about nodes; it holds the nodes, so that their ids are not used again."""

    _children: dict[int, tuple[tree.Node, list[Scoped]]] = field(default_factory=dict)
    _free: dict[int, VariableNames] = field(default_factory=dict)
    _refers: dict[tuple[int, bool], bool] = field(default_factory=dict)

    def children(self, node: tree.Node) -> list[Scoped]:
        """Return the children of a node as `tree.children` yields them."""
        known = self._children.get(id(node))
        if known is None:
            known = self._children[id(node)] = (node, list(children(node)))
        return known[1]

    def free(self, node: tree.Node) -> VariableNames:
        """Return the free variables of an expression, which are defined around it."""
        if isinstance(node, tree.Name):
            return frozenset({node.name})
        parts = self.children(node)  # from here on the node is held
        known = self._free.get(id(node))
        if known is None:
            names = (self.free(child) - bound for child, bound, _ in parts)
            known = self._free[id(node)] = frozenset().union(*names)
        return known

    def uses(self, node: tree.Node, name: str) -> int:
        """Return how often a variable is used; at least `MANY` inside what is repeated."""
        if name not in self.free(node):
            return 0
        if isinstance(node, tree.Name):
            return 1
        total = 0
        for number, (child, bound, is_object) in enumerate(self.children(node)):
            if name not in bound:
                is_repeated = self._repeats(node, number, is_object=is_object)
                total += self.uses(child, name) * (MANY if is_repeated else 1)
        return total

    def _repeats(self, node: tree.Node, number: int, *, is_object: bool) -> bool:
        match node:
            case tree.Function():
                return True
            case tree.ArrayOf() | tree.ObjectOf():
                return number > 0  # the first source is evaluated once
            case tree.Object():
                return is_object and self.refers_to_object(node)
        return False

    def refers_to_object(self, node: tree.Object, *, dollar: bool = True) -> bool:
        """Return whether an object literal refers to itself: by `self` or `super`, or as `$`."""
        return any(
            self._refers_there(child, dollar=dollar)
            for child, _, is_object in self.children(node)
            if is_object
        )

    def _refers_there(self, node: tree.Node, *, dollar: bool) -> bool:
        key = (id(node), dollar)
        parts = self.children(node)  # from here on the node is held
        if key not in self._refers:
            match node:
                case tree.Self() | tree.SuperIndex() | tree.InSuper():
                    self._refers[key] = True
                case tree.Dollar():
                    self._refers[key] = dollar
                case _:
                    self._refers[key] = any(
                        dollar and self._has_dollar(child)
                        if is_object
                        else self._refers_there(child, dollar=dollar)
                        for child, _, is_object in parts
                    )
        return self._refers[key]

    def _has_dollar(self, node: tree.Node) -> bool:
        """Say whether `$` stands in an expression; in an inner object it means the outermost."""
        return isinstance(node, tree.Dollar) or any(
            self._has_dollar(child) for child, _, _ in self.children(node)
        )

    def surely_uses(self, node: tree.Node | None, name: str, *, deep: bool) -> bool:
        """Return whether evaluating an expression (`deep`: all of it) evaluates the variable."""
        if node is None or name not in self.free(node):
            return False
        match node:
            case tree.Name():
                return True
            case tree.If(_, condition, yes, no):
                in_both = all(self.surely_uses(each, name, deep=deep) for each in (yes, no))
                return in_both or self.surely_uses(condition, name, deep=False)
            case tree.Local(_, _, body):
                return self.surely_uses(body, name, deep=deep)
            case tree.Array(_, items):
                return deep and any(self.surely_uses(item, name, deep=True) for item in items)
            case tree.Object(_, fields, binds):
                return (
                    deep
                    and all(bind.name != name for bind in binds)
                    and any(self._field_uses(each, name) for each in fields)
                )
        return any(self.surely_uses(part, name, deep=False) for part in _operands(node))

    def _field_uses(self, each: tree.Field, name: str) -> bool:
        is_seen = not each.is_computed and each.visibility != "::"
        return is_seen and self.surely_uses(each.value, name, deep=True)


def _operands(node: tree.Node) -> Sequence[tree.Node | None]:
    """Return the parts that are evaluated whenever an expression is."""
    match node:
        case tree.Index(_, target, key):
            return (target, key)
        case tree.Slice(_, target, start, end, step):
            return (target, start, end, step)
        case tree.Unary(_, _, operand):
            return (operand,)
        case tree.Binary(_, operator, left, right):
            return (left,) if operator in ("&&", "||") else (left, right)
        case tree.Assert(_, check):
            return (check.condition,)
        case tree.Call(_, tree.Index(_, tree.Name(_, "std"), tree.Constant(_, str(called)))):
            return node.arguments if called in _STRICT else ()
        case tree.Call(_, target):
            return (target,)
        case tree.ArrayOf(_, _, (tree.For(_, source), *_)):
            return (source,)
    return ()


_STRICT = frozenset(
    {
        *("length", "toString", "split", "strReplace", "stringChars", "trim", "parseInt"),
        *("startsWith", "endsWith", "asciiLower", "asciiUpper", "isEmpty", "objectFields"),
        *("isString", "isNumber", "isArray", "isObject", "isBoolean"),
    }
)
"""Functions of `std` that look at all of their arguments."""
