"""References resolve lazily, and a wrong one is answered with what is wrong and what there is."""

from __future__ import annotations

import hashlib
import importlib.metadata
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from nas_core import refs
from nas_core.errors import MachineError, NasError, NotFoundError, UsageError

BUILTINS = {"counter": "collections:Counter", "pi": "math:pi", "broken": "math:no_such_thing"}
FILE = """
from __future__ import annotations
from dataclasses import dataclass
@dataclass
class Space:
    levels: int = 2
space = Space()
def make(levels):
    return Space(levels + 1)
"""


def load(reference: str) -> refs.Loaded:
    return refs.load(reference, BUILTINS, "nas.no_such_group", "space")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "my space.py"
    path.write_text(FILE, encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("text", "target", "arguments"),
    [
        ("regnet", "regnet", {}),
        (" regnet ", "regnet", {}),
        ("regnet()", "regnet", {}),
        ("regnet(stages=2)", "regnet", {"stages": 2}),
        ("a.b:c(x='y', z=[1, (2, 3)], w={'k': None}, t=-1.5)", "a.b:c",
         {"x": "y", "z": [1, (2, 3)], "w": {"k": None}, "t": -1.5}),
        ("dir/my space.py:space(levels=3)", "dir/my space.py:space", {"levels": 3}),
        ("moe(backbone=text, deep=true, wide=false, none=none)", "moe",
         {"backbone": "text", "deep": True, "wide": False, "none": None}),
        ("a(ops=(gcn, my_ops.py:Mine, 'gat'), sizes=[1, two, (3,)])", "a",
         {"ops": ("gcn", "my_ops.py:Mine", "gat"), "sizes": [1, "two", (3,)]}),
        ("a(inner=b(c=d(e=1), f=[2]), g=my_ops.py:Mine(width=4))", "a",
         {"inner": "b(c=d(e=1), f=[2])", "g": "my_ops.py:Mine(width=4)"}),
        ("a(b=(c), d=(c,), e=(), f='x, y) z', g=1e-3, h=-w, i='it\\'s',)", "a",
         {"b": "c", "d": ("c",), "e": (), "f": "x, y) z", "g": 1e-3, "h": "-w", "i": "it's"}),
    ],
)  # fmt: skip
def test_a_reference_is_a_target_and_literal_arguments(text: str, target: str, arguments: dict[str, Any]) -> None:
    assert refs.split(text, "space") == (target, arguments)


@pytest.mark.parametrize(
    "text",
    [
        *("", "a(", "a)b", "a(1)", "a(b=)", "a(b=1)(c=2)", "a(b=1) c", "a(b=c d)", "a(b=c=d)", "a(b=[c)", "a(b=c])"),
        *("(b=1)", "a(b=1, b=2)", "a(b=f(]))", "a(2b=c)", "a(b='c)", "a(b=f(c)d)", "a(,b=1)", "a(b=[c,,d])"),
    ],
)
def test_a_malformed_reference_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match=r"space '.*'.*(malformed|literals)"):
        refs.split(text, "space")


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("nasnet:NASNet-A", ("nasnet", "NASNet-A")),
        ("darts(levels=(1, (2, 3))):a:b", ("darts(levels=(1, (2, 3)))", "a:b")),
        ("moe(inner=x.py:y, s=':'):z", ("moe(inner=x.py:y, s=':')", "z")),
        ("my/space.py:space(ops=(a, f.py:g)):w=2", ("my/space.py:space(ops=(a, f.py:g))", "w=2")),
        ("package.module:Space:w=2", ("package.module:Space", "w=2")),
        ("nasnet", None), (":x", None), ("nasnet:", None), ("my.py:space", None), ("a(b:c)", None),
    ],
)  # fmt: skip
def test_what_follows_a_reference_is_after_its_own_colon(text: str, parts: tuple[str, str] | None) -> None:
    assert refs.before_colon(text) == parts


def test_files_that_arguments_name_count_in_the_hash(file: Path) -> None:
    other = file.with_name("ops.py")
    other.write_text("Mine = 1\n", encoding="utf-8")

    def hashes() -> list[str | None]:
        texts = ("counter(a=2)", f"counter(a='{other}:Mine')", f"counter(a=[1, ('{other}:Mine(w=2)',)])")
        return [load(text).file_hash for text in (*texts, f"{file}:make(levels=4)")]

    first = hashes()
    assert first[0] is None
    assert first[1] is not None
    assert first[1] == first[2]
    other.write_text("Mine = 2\n", encoding="utf-8")
    second = hashes()
    assert second[1] not in (None, first[1])
    assert second[0::3] == first[0::3]


def test_built_in_names_classes_and_objects() -> None:
    assert load("counter(a=2)") == refs.Loaded(__import__("collections").Counter(a=2), "counter(a=2)")
    assert load("pi").object == pytest.approx(3.14159, abs=1e-5)
    assert load("collections:OrderedDict").object == {}
    assert refs.find("counter", BUILTINS, "nas.no_such_group", "space") is __import__("collections").Counter
    assert refs.names(BUILTINS, "nas.no_such_group") == ["counter", "pi", "broken"]


def test_a_file_is_loaded_by_path_and_its_hash_is_known(file: Path) -> None:
    before = list(sys.path)
    loaded = load(f"{file}:space")
    assert loaded.object.levels == 2
    assert loaded.file_hash == hashlib.sha256(FILE.encode()).hexdigest()[:16]
    assert load(f"{file}:make(levels=4)").object.levels == 5
    assert load(f"{file}:Space").object.levels == 2
    assert type(load(f"{file}:space").object) is type(loaded.object), "one file is one module"
    assert sys.path == before
    file.write_text(FILE.replace("= 2", "= 7"), encoding="utf-8")
    assert load(f"{file}:space").object.levels == 7
    assert load(f"{file}:space").file_hash != loaded.file_hash


@pytest.mark.parametrize(
    ("reference", "kind", "message"),
    [
        ("conter", UsageError, "unknown space 'conter'; did you mean 'counter'? (known: counter, pi, broken)"),
        ("zzz", UsageError, "unknown space 'zzz' (known: counter, pi, broken)"),
        ("no/such/file.py:space", NotFoundError, "there is no file 'no/such/file.py'"),
        ("nomodule.atall:thing", NotFoundError, "there is no module 'nomodule.atall'"),
        ("collections.nomodule:thing", NotFoundError, "there is no module 'collections.nomodule'"),
        ("math:no_such_thing", NotFoundError, "no object 'no_such_thing' in it (it has "),
        ("broken", NotFoundError, "no object 'no_such_thing' in it"),
        ("pi(a=1)", UsageError, "'pi' takes no arguments"),
        ("collections:OrderedDict(maxlen=3, a=[])", None, ""),
        ("fractions:Fraction(levels=3)", UsageError, "has no argument 'levels'; it takes numerator, denominator"),
    ],
)
def test_a_wrong_reference_is_explained(reference: str, kind: type[NasError] | None, message: str) -> None:
    if kind is None:
        load(reference)
        return
    with pytest.raises(kind) as caught:
        load(reference)
    assert message in str(caught.value)


def test_what_a_file_lacks_or_does_wrong_is_explained(tmp_path: Path, file: Path) -> None:
    with pytest.raises(NotFoundError, match=r"no object 'spaec' in it \(it has .*Space, space, make\)"):
        load(f"{file}:spaec")
    with pytest.raises(UsageError, match="missing 1 required positional argument: 'levels'"):
        load(f"{file}:make")
    broken = tmp_path / "broken.py"
    for source, message in (("import no_such_thing", "ModuleNotFoundError"), ("def", "SyntaxError"), ("1/0", "Zero")):
        broken.write_text(source, encoding="utf-8")
        with pytest.raises(UsageError, match=f"fails to load: {message}"):
            load(f"{broken}:space")
    assert not [name for name, module in sys.modules.items() if getattr(module, "__file__", "") == str(broken)]


def test_a_module_that_needs_a_missing_one_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "needs_missing_module.py").write_text("import no_such_extra.part", encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(MachineError, match="'needs_missing_module:space' needs the module 'no_such_extra'"):
        load("needs_missing_module:space")


def test_entry_points_come_after_built_in_names(monkeypatch: pytest.MonkeyPatch) -> None:
    points = [
        importlib.metadata.EntryPoint("plugin", "fractions:Fraction", "nas.test"),
        importlib.metadata.EntryPoint("pi", "fractions:Fraction", "nas.test"),
    ]
    monkeypatch.setattr(importlib.metadata, "entry_points", lambda group: [p for p in points if p.group == group])
    assert refs.load("plugin(numerator=3)", BUILTINS, "nas.test", "space").object == 3
    assert refs.load("pi", BUILTINS, "nas.test", "space").object != 0
    assert refs.names(BUILTINS, "nas.test") == ["counter", "pi", "broken", "plugin"]
    with pytest.raises(UsageError, match=r"did you mean 'plugin'\? \(known: counter, pi, broken, plugin"):
        refs.load("plugn", BUILTINS, "nas.test", "space")


def test_nothing_is_imported_before_it_is_asked_for() -> None:
    code = (
        "import sys; import nas_core.refs, search_spaces, strategies;"
        "print([m for m in ('numpy', 'torch', 'pydantic', 'search_spaces.regnet.space') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
