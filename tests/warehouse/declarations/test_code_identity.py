"""What counts as a change of code, what does not, and what refold says that it cannot see."""

# ruff: noqa: E501  a case is the code before beside the code after, which long lines show best

from __future__ import annotations

import importlib
import itertools
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from refold.warehouse.declarations.code_identity.identity import CodeIdentity, code_identity

Load = Callable[..., ModuleType]
_numbers = itertools.count()


@pytest.fixture
def load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Load:
    """Return a function that writes a package of modules, and imports one of them as a user's own."""

    def loaded(source: str, **others: str) -> ModuleType:
        package = f"shop{next(_numbers)}"
        folder = tmp_path / package
        folder.mkdir()
        monkeypatch.syspath_prepend(str(tmp_path))
        for name, text in {"__init__": "", **others, "domain": source}.items():
            (folder / f"{name}.py").write_text(text)
        return importlib.import_module(f"{package}.domain")

    return loaded


def _fold(module: ModuleType, **options: Any) -> CodeIdentity:
    return code_identity(module.fold, **options)


def _source(header: str, body: str) -> str:
    return header + f"\ndef fold(state, event):\n    return {body}\n"


CHANGED = {
    "its own code": ("", "event.cents", "", "-event.cents"),
    "a dict": ("SIGN = {'in': 1, 'out': 1}", "event.cents * SIGN[event.kind]",
               "SIGN = {'in': 1, 'out': -1}", "event.cents * SIGN[event.kind]"),
    "the order of a dict that is iterated": ("D = {'a': 1, 'ab': 2}", "[v for k, v in D.items() if k in event.kind][0]",
                                             "D = {'ab': 2, 'a': 1}", "[v for k, v in D.items() if k in event.kind][0]"),
    "a tuple": ("T = (1, 2)", "T[0]", "T = (2, 2)", "T[0]"),
    "the type of a number": ("T = (1, 2)", "T[0]", "T = (1.0, 2)", "T[0]"),
    "a frozenset": ("T = frozenset({'a'})", "event.kind in T", "T = frozenset({'a', 'b'})", "event.kind in T"),
    "a minus before zero": ("Z = 0.0", "Z", "Z = -0.0", "Z"),
    "nested values": ("T = {'a': [{'b': (1, {2})}]}", "T['a']", "T = {'a': [{'b': (1, {3})}]}", "T['a']"),
    "an Enum": ("import enum\nclass K(enum.Enum):\n    IN = 1\n    OUT = 2", "K.IN.value",
                "import enum\nclass K(enum.Enum):\n    IN = 3\n    OUT = 2", "K.IN.value"),
    "a method of an Enum": ("import enum\nclass K(enum.Enum):\n    IN = 1\n    def sign(self):\n        return 1", "K.IN.sign()",
                            "import enum\nclass K(enum.Enum):\n    IN = 1\n    def sign(self):\n        return 2", "K.IN.sign()"),
    "a decimal": ("from decimal import Decimal\nR = Decimal('2.50')", "R", "from decimal import Decimal\nR = Decimal('2.51')", "R"),
    "a time": ("from datetime import datetime, timezone\nR = datetime(2026, 1, 1, tzinfo=timezone.utc)", "R",
               "from datetime import datetime, timezone\nR = datetime(2026, 1, 2, tzinfo=timezone.utc)", "R"),
    "a zone": ("from zoneinfo import ZoneInfo\nR = ZoneInfo('Europe/Berlin')", "R",
               "from zoneinfo import ZoneInfo\nR = ZoneInfo('Europe/Paris')", "R"),
    "a pattern": ("import re\nR = re.compile('a+')", "R.match(event.kind)", "import re\nR = re.compile('a*')", "R.match(event.kind)"),
    "a flag of a pattern": ("import re\nR = re.compile('a')", "R.match('')", "import re\nR = re.compile('a', re.I)", "R.match('')"),
    "a helper": ("def h(x):\n    return x", "h(1)", "def h(x):\n    return x + 1", "h(1)"),
    "a helper of a helper": ("def g(x):\n    return x\ndef h(x):\n    return g(x)", "h(1)",
                             "def g(x):\n    return -x\ndef h(x):\n    return g(x)", "h(1)"),
    "a helper in a comprehension": ("def h(x):\n    return x", "[h(x) for x in event.parts]",
                                    "def h(x):\n    return -x", "[h(x) for x in event.parts]"),
    "a helper in a lambda": ("def h(x):\n    return x", "sorted(event.parts, key=lambda p: h(p))",
                             "def h(x):\n    return -x", "sorted(event.parts, key=lambda p: h(p))"),
    "a cached helper": ("import functools\n@functools.lru_cache\ndef h(x):\n    return x", "h(1)",
                        "import functools\n@functools.lru_cache\ndef h(x):\n    return -x", "h(1)"),
    "a wrapped helper": (
        "import functools\ndef deco(f):\n    @functools.wraps(f)\n    def w(*a):\n        return f(*a)\n    return w\n@deco\ndef h(x):\n    return x", "h(1)",
        "import functools\ndef deco(f):\n    @functools.wraps(f)\n    def w(*a):\n        return f(*a)\n    return w\n@deco\ndef h(x):\n    return -x", "h(1)"),
    "the wrapper": (
        "import functools\ndef deco(f):\n    @functools.wraps(f)\n    def w(*a):\n        return f(*a)\n    return w\n@deco\ndef h(x):\n    return x", "h(1)",
        "import functools\ndef deco(f):\n    @functools.wraps(f)\n    def w(*a):\n        return -f(*a)\n    return w\n@deco\ndef h(x):\n    return x", "h(1)"),
    "an argument of a decorator": (
        "def times(n):\n    def deco(f):\n        def w(x):\n            return n * f(x)\n        return w\n    return deco\n@times(2)\ndef h(x):\n    return x", "h(1)",
        "def times(n):\n    def deco(f):\n        def w(x):\n            return n * f(x)\n        return w\n    return deco\n@times(3)\ndef h(x):\n    return x", "h(1)"),
    "a context manager": ("import contextlib\n@contextlib.contextmanager\ndef h():\n    yield 1", "h().__enter__()",
                          "import contextlib\n@contextlib.contextmanager\ndef h():\n    yield 2", "h().__enter__()"),
    "a partial": ("import functools\ndef g(a, b):\n    return a * b\nh = functools.partial(g, 2)", "h(1)",
                  "import functools\ndef g(a, b):\n    return a * b\nh = functools.partial(g, 3)", "h(1)"),
    "the function of a partial": ("import functools\ndef g(a, b):\n    return a * b\nh = functools.partial(g, 2)", "h(1)",
                                  "import functools\ndef g(a, b):\n    return a + b\nh = functools.partial(g, 2)", "h(1)"),
    "an implementation of a singledispatch": (
        "import functools\n@functools.singledispatch\ndef h(x):\n    return 0\n@h.register\ndef _(x: int):\n    return 1", "h(1)",
        "import functools\n@functools.singledispatch\ndef h(x):\n    return 0\n@h.register\ndef _(x: int):\n    return 2", "h(1)"),
    "a method": ("class C:\n    def m(self):\n        return 1", "C().m()", "class C:\n    def m(self):\n        return 2", "C().m()"),
    "a method of a base": ("class B:\n    def m(self):\n        return 1\nclass C(B):\n    pass", "C().m()",
                           "class B:\n    def m(self):\n        return 2\nclass C(B):\n    pass", "C().m()"),
    "a property": ("class C:\n    @property\n    def m(self):\n        return 1", "C().m", "class C:\n    @property\n    def m(self):\n        return 2", "C().m"),
    "a classmethod": ("class C:\n    @classmethod\n    def m(cls):\n        return 1", "C.m()", "class C:\n    @classmethod\n    def m(cls):\n        return 2", "C.m()"),
    "a staticmethod": ("class C:\n    @staticmethod\n    def m():\n        return 1", "C.m()", "class C:\n    @staticmethod\n    def m():\n        return 2", "C.m()"),
    "a cached_property": ("import functools\nclass C:\n    @functools.cached_property\n    def m(self):\n        return 1", "C().m",
                          "import functools\nclass C:\n    @functools.cached_property\n    def m(self):\n        return 2", "C().m"),
    "an attribute of a class": ("class C:\n    rate = 1", "C.rate", "class C:\n    rate = 2", "C.rate"),
    "a default": ("def h(x, y=1):\n    return x * y", "h(1)", "def h(x, y=2):\n    return x * y", "h(1)"),
    "a keyword default": ("def h(x, *, y=1):\n    return x * y", "h(1)", "def h(x, *, y=2):\n    return x * y", "h(1)"),
    "a default that is computed": ("R = 1\ndef h(x, y=R):\n    return x * y", "h(1)", "R = 2\ndef h(x, y=R):\n    return x * y", "h(1)"),
    "the default of a dataclass": (
        "from dataclasses import dataclass\n@dataclass\nclass C:\n    rate: int = 1", "C().rate",
        "from dataclasses import dataclass\n@dataclass\nclass C:\n    rate: int = 2", "C().rate"),
    "the factory of a dataclass": (
        "from dataclasses import dataclass, field\n@dataclass(slots=True)\nclass C:\n    rate: list = field(default_factory=lambda: [1])", "C().rate",
        "from dataclasses import dataclass, field\n@dataclass(slots=True)\nclass C:\n    rate: list = field(default_factory=lambda: [2])", "C().rate"),
    "an object of a dataclass": (
        "from dataclasses import dataclass\n@dataclass(frozen=True)\nclass C:\n    rate: int\nX = C(1)", "X.rate",
        "from dataclasses import dataclass\n@dataclass(frozen=True)\nclass C:\n    rate: int\nX = C(2)", "X.rate"),
    "a named tuple": ("from typing import NamedTuple\nclass C(NamedTuple):\n    rate: int\nX = C(1)", "X.rate",
                      "from typing import NamedTuple\nclass C(NamedTuple):\n    rate: int\nX = C(2)", "X.rate"),
    "the state of a callable": ("class C:\n    def __init__(self, n):\n        self.n = n\n    def __call__(self, x):\n        return x * self.n\nh = C(1)", "h(1)",
                                "class C:\n    def __init__(self, n):\n        self.n = n\n    def __call__(self, x):\n        return x * self.n\nh = C(2)", "h(1)"),
    "a bound method": ("class C:\n    def __init__(self, n):\n        self.n = n\n    def m(self, x):\n        return x * self.n\nh = C(1).m", "h(1)",
                       "class C:\n    def __init__(self, n):\n        self.n = n\n    def m(self, x):\n        return x * self.n\nh = C(2).m", "h(1)"),
    "a method of a dict": ("sign = {'in': 1}.get", "sign('in')", "sign = {'in': -1}.get", "sign('in')"),
    "an object of a class that extends dict": ("class D(dict):\n    pass\nX = D(a=1)", "X['a']", "class D(dict):\n    pass\nX = D(a=2)", "X['a']"),
    "a slot": ("class C:\n    __slots__ = ('n',)\n    def __init__(self, n):\n        self.n = n\nX = C(1)", "X.n",
               "class C:\n    __slots__ = ('n',)\n    def __init__(self, n):\n        self.n = n\nX = C(2)", "X.n"),
    "an attribute of a function": ("def h(x):\n    return h.rate\nh.rate = 1", "h(1)", "def h(x):\n    return h.rate\nh.rate = 2", "h(1)"),
    "a lambda beside another": ("f, g = (lambda x: x), (lambda x: x + 1)", "f(1)", "g, f = (lambda x: x), (lambda x: x + 1)", "f(1)"),
    "a text in an f-string": ("", "f'a{event.kind!r:>{4}}'", "", "f'b{event.kind!r:>{4}}'"),
    "a format": ("", "f'{event.kind:>4}'", "", "f'{event.kind:>5}'"),
    "an attrgetter": ("import operator\nh = operator.attrgetter('a')", "h(event)", "import operator\nh = operator.attrgetter('b')", "h(event)"),
    "a recursion": ("def even(n):\n    return n == 0 or odd(n - 1)\ndef odd(n):\n    return n != 0 and even(n - 1)", "even(2)",
                    "def even(n):\n    return n == 0 or odd(n - 1)\ndef odd(n):\n    return n != 1 and even(n - 1)", "even(2)"),
}  # fmt: skip


@pytest.mark.parametrize("case", CHANGED, ids=lambda case: case.replace(" ", "-"))
def test_a_change_is_seen(case: str, load: Load) -> None:
    """A change of anything that a function depends on changes its identity, and nothing of it is unseen."""
    header, body, other_header, other_body = CHANGED[case]
    before, after = _fold(load(_source(header, body))), _fold(load(_source(other_header, other_body)))
    assert before.digest != after.digest
    assert before.unseen == after.unseen == ()
    assert _fold(load(_source(header, body))) == before, "another module with the same code has the same identity"


SAME = {
    "layout and comments": ("", "event.cents + 1", "# a comment", "(event.cents\n            + 1)  # one"),
    "a docstring of a helper": ("def h(x):\n    return x", "h(1)", "def h(x):\n    '''Doc.'''\n    return x", "h(1)"),
    "annotations": ("def h(x):\n    y = x\n    return y", "h(1)", "def h(x: int) -> int:\n    y: int = x\n    return y", "h(1)"),
    "the order of a set": ("S = {'a', 'b', 'c'}", "event.kind in S", "S = {'c', 'a', 'b'}", "event.kind in S"),
    "the order of a set of tuples": ("S = {('a', 1), ('b', 2)}", "event.kind in S", "S = {('b', 2), ('a', 1)}", "event.kind in S"),
    "the order of a dict for lookups": ("D = {'a': 1, 'b': 2}", "D[event.kind]", "D = {'b': 2, 'a': 1}", "D[event.kind]"),
    "the order of nested dicts for lookups": ("D = {'a': {'x': 1, 'y': 2}}", "D['a'][event.kind]",
                                              "D = {'a': {'y': 2, 'x': 1}}", "D['a'][event.kind]"),
    "the place of a helper": ("def h(x):\n    return x\ndef g(x):\n    return h(x)", "g(1)", "def g(x):\n    return h(x)\ndef h(x):\n    return x", "g(1)"),
    "something that is not used": ("UNUSED = 1", "event.cents", "UNUSED = 2", "event.cents"),
    "quotes": ("", "'a' + 'b\\''", "", '"a" + "b\'"'),
    "a text that was cut": ("", "f'ab{event.kind}'", "", "'a' f'b{event.kind}'"),
    "a cache": ("import functools\n@functools.cache\ndef h(x):\n    return x\nh(3)", "h(1)", "import functools\n@functools.cache\ndef h(x):\n    return x", "h(1)"),
    "a logger": ("import logging\nlog = logging.getLogger('a')", "log.info('x')", "import logging\nlog = logging.getLogger('a')\nlog.setLevel(10)", "log.info('x')"),
}  # fmt: skip


@pytest.mark.parametrize("case", SAME, ids=lambda case: case.replace(" ", "-"))
def test_what_is_no_change(case: str, load: Load) -> None:
    """Layout, comments, docstrings, annotations and what is not used do not change an identity."""
    header, body, other_header, other_body = SAME[case]
    before, after = _fold(load(_source(header, body))), _fold(load(_source(other_header, other_body)))
    assert before == after
    assert before.unseen == ()


UNSEEN = {
    "a file": ("F = open(__file__)", "F.read()", "TextIOWrapper"),
    "open": ("", "open('rates.txt').read()", "io.open"),
    "a path": ("from pathlib import Path", "Path('rates').read_text()", "pathlib.Path"),
    "the environment": ("import os", "os.environ['RATE']", "os.environ"),
    "the environment by another name": ("from os import environ", "environ['RATE']", "environ"),
    "getenv": ("from os import getenv", "getenv('RATE')", "os.getenv"),
    "eval": ("", "eval('1 + 1')", "builtins.eval"),
    "exec": ("", "exec('x = 1')", "builtins.exec"),
    "globals": ("", "globals()['x']", "builtins.globals"),
    "getattr": ("import math", "getattr(event, event.kind)", "`getattr` by a name that is computed"),
    "getattr as a value": ("", "list(map(getattr, [event], ['a']))", "`getattr` as a value"),
    "import_module": ("import importlib", "importlib.import_module('json').dumps({})", "importlib.import_module"),
    "__import__": ("", "__import__('json')", "builtins.__import__"),
    "a clock": ("from datetime import datetime", "datetime.now()", "datetime.datetime.now"),
    "a clock of a module": ("import time", "time.time()", "time.time"),
    "chance": ("import random", "random.random()", "random.random"),
    "a lock": ("import threading\nL = threading.Lock()", "L.acquire()", "lock"),
    "an iterator": ("import itertools\nN = itertools.count()", "next(N)", "itertools.count"),
    "a dict that it changes": ("SEEN = {}", "SEEN.setdefault(event.kind, 1)", "`SEEN`, which it changes"),
    "code without source": ("exec('def h(x):\\n    return x')", "h(1)", "source is not available"),
    "an array": ("import numpy\nA = numpy.array([1])", "A[0]", "numpy.ndarray"),
}


@pytest.mark.parametrize("case", UNSEEN, ids=lambda case: case.replace(" ", "-"))
def test_what_cannot_be_seen_is_named(case: str, load: Load) -> None:
    """What the code cannot show is named, with the way to it; a version stands for it."""
    header, body, name = UNSEEN[case]
    module = load(_source(header, body))
    found = _fold(module)
    assert name in " ".join(found.unseen)
    assert _fold(module, version="1").digest != _fold(module, version="2").digest


def test_a_global_that_is_assigned_is_named(load: Load) -> None:
    """A function that assigns a variable outside itself depends on how often it was called."""
    module = load("N = 0\ndef fold(state, event):\n    global N\n    N += 1\n    return N\n")
    assert "`N`, which it assigns" in " ".join(_fold(module).unseen)
    closure = load(
        "def make():\n    n = 0\n    def f(s, e):\n        nonlocal n\n        n += 1\n        return n\n    return f\nfold = make()\n"
    )
    assert "`n`, which it assigns" in " ".join(_fold(closure).unseen)


@pytest.mark.parametrize("use", ["rates.tax(1)", "rates.RATE", "rates.Rate.low", "rates.deep.RATE"])
def test_a_module_of_the_same_package_counts_as_far_as_it_is_used(use: str, load: Load) -> None:
    """``module.helper()`` and ``module.CONSTANT`` are read; what is not used of the module does not count."""
    rates = "from . import deep\nRATE = 1\ndef tax(x):\n    return x * RATE\nclass Rate:\n    low = RATE\nUNUSED = 1\n"
    for header in ("from . import rates\n", ""):
        local = "" if header else "    from . import rates\n"
        source = f"{header}def fold(state, event):\n{local}    return {use}\n"
        before = _fold(load(source, rates=rates, deep="RATE = 1\n"))
        unused = _fold(load(source, rates=rates.replace("UNUSED = 1", "UNUSED = 2"), deep="RATE = 1\n"))
        after = _fold(load(source, rates=rates.replace("RATE = 1", "RATE = 2"), deep="RATE = 2\n"))
        assert before == unused
        assert before.digest != after.digest
        assert before.unseen == ()


def test_a_closure_counts(load: Load) -> None:
    """The variables of an enclosing function are part of an identity."""
    made = "def make(rate):\n    def f(s, e):\n        return e.cents * rate\n    return f\nfold = make({})\n"
    assert _fold(load(made.format(1))) == _fold(load(made.format(1)))
    assert _fold(load(made.format(1))).digest != _fold(load(made.format(2))).digest


def test_another_package_counts_by_its_version(load: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    """A function of another distribution is named with that distribution's version, and its source is not read."""
    import importlib.metadata

    from refold.warehouse.declarations.code_identity import origin

    source = "import tenacity\nimport orjson\ndef fold(state, event):\n    return orjson.dumps(tenacity.stop_after_attempt(3))\n"
    before = _fold(load(source))
    assert before.unseen == ()
    version = importlib.metadata.version
    monkeypatch.setattr(importlib.metadata, "version", lambda name: "99" if name == "tenacity" else version(name))
    origin.distribution_of.cache_clear()
    try:
        assert _fold(load(source)).digest != before.digest
    finally:
        monkeypatch.undo()
        origin.distribution_of.cache_clear()


def test_a_helper_that_is_declared_below_is_not_missed_yet(load: Load) -> None:
    """While modules are being loaded, a name without value is pending: it is looked for again."""
    module = load("def fold(state, event):\n    return later(event)\n")
    found = _fold(module)
    assert (found.unseen, found.pending) == ((), ("fold > `later`, which is not defined yet",))


def test_an_object_that_contains_itself_has_an_identity(load: Load) -> None:
    """A cycle ends."""
    module = load("L = [1]\nL.append(L)\nclass A:\n    pass\nX = A()\nX.me = X\ndef fold(s, e):\n    return L, X\n")
    assert _fold(module).unseen == ()


def test_a_large_constant_counts(load: Load) -> None:
    """A constant of many items counts to its last item."""
    source = "D = {{n: str(n) for n in range(5000)}}\nD[4999] = {!r}\ndef fold(s, e):\n    return D[e.n]\n"
    assert _fold(load(source.format("a"))).digest != _fold(load(source.format("b"))).digest


GOLDEN = '''
import enum, functools, re
from collections import deque
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from decimal import Decimal
from pathlib import PurePath
from typing import NamedTuple, Any
from zoneinfo import ZoneInfo

class Kind(enum.Enum):
    IN = "in"
    OUT = "out"

    @property
    def sign(self) -> int:
        """Doc."""
        return SIGN[self]

class Flag(enum.IntFlag):
    A = enum.auto()
    B = enum.auto()

SIGN = {Kind.IN: 1, Kind.OUT: -1}

class Point(NamedTuple):
    x: int
    y: int = 2

@dataclass(frozen=True, slots=True, order=True)
class Rate:
    amount: Decimal
    tags: tuple[str, ...] = ()
    parts: list[int] = field(default_factory=list)

    def of(self, cents: int) -> Decimal:
        return super().__hash__() and cents * self.amount

class Base:
    registry: dict[str, int] = {}

    def __init_subclass__(cls, **kw: Any) -> None:
        super().__init_subclass__(**kw)

class Child(Base):
    def __eq__(self, other: object) -> bool:
        return True

    @staticmethod
    def name(x): return f"{x!r:>{10}} {x=} {{}} a" "b" f"{x:%Y-%m}"

CONSTANTS = (
    1, 2.5, float("nan"), -0.0, True, None, "text\\u00e9\\ud800", b"bytes", 10 ** 40, {"b", "a"}, frozenset({(1, 2), (3,)}),
    [Rate(Decimal("1.50")), Point(1)], Flag.A | Flag.B, re.compile("a+", re.I | re.X), timedelta(days=1),
    datetime(2026, 1, 1, tzinfo=timezone.utc), ZoneInfo("Europe/Berlin"), PurePath("a/b"), deque([1]), range(3), ...,
    dict[str, int], int | None, slice(1, 2),
)

@functools.singledispatch
def show(x): return 0

@show.register
def _(x: int): return 1

@functools.lru_cache(maxsize=None)
def cached(x, *args, key=lambda v: v, **kwargs): return [key(v) for v in args if (w := v)]

def fold(state, event: Any, /, *, start: int = 3) -> Any:
    """Doc."""
    total: int
    match event:
        case {"kind": Kind.IN, **rest}: total = 1
        case [1, *others] | Point(x=others): total = 2
        case _: total = start
    try:
        with suppress() as nothing:
            state = {**(state or {}), "n": total, "k": Kind("in").sign}
    except* (ValueError, KeyError) as error:
        raise RuntimeError(f"bad {error}") from error
    finally:
        del total
    async def inner():
        async for one in event: yield await one
    return state, CONSTANTS, show(1), cached(1), Child().name(2), functools.reduce(max, [1]), inner, PurePath, re.match

def suppress():
    class Nothing:
        rate = 1
        def __enter__(self): return self.rate
        def __exit__(self, *exc): return None
    return Nothing()
'''


def test_the_same_on_every_python(load: Load) -> None:
    """Code that uses most of the language has one identity, whichever Python version runs it."""
    found = _fold(load(GOLDEN))
    assert found.unseen == ()
    assert found.digest == "604d8a23ab04cf4d7b61533f27fc97a3", sys.version
