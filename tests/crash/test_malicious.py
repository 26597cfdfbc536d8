"""Files that somebody else has written: YAML, archives, pickles, databases and names that are made to do harm.

None runs code, writes elsewhere, fills the memory or hangs; each ends as a line that says what is wrong.
"""

from __future__ import annotations

import gzip
import io
import json
import os
import pickle
import resource
import sqlite3
import struct
import subprocess
import sys
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy
import pytest
import torch

from nas_cli.errors import LINE
from nas_core.errors import NasError
from nas_core.plain import from_json
from nas_core.task import Task
from tests.crash.sessions import SEARCH
from training.export import rebuild
from training.yaml_text import from_yaml

Say = Callable[..., tuple[int, str, str]]


class Harm:
    """Leaves a file behind where it is unpickled."""

    def __reduce__(self) -> tuple[Callable[[str], object], tuple[str]]:
        return os.mkdir, ("harmed",)


def clear(answer: tuple[int, str, str], *codes: int) -> str:
    """What a command that has to refuse says: a line or two, no traceback, nothing that steers a terminal."""
    code, _, err = answer
    assert code in codes, (code, err)
    assert "Traceback" not in err
    assert "defect of nas" not in err
    complaint = err[err.index("nas: ") :].rstrip("\n")
    assert complaint.count("\n") <= 2, complaint
    assert all(letter.isprintable() or letter == "\n" for letter in complaint), complaint
    assert max(map(len, complaint.splitlines())) <= LINE + 100
    assert not Path("harmed").exists()
    return complaint


# -- YAML and JSON -----------------------------------------------------------------------------------------


def bomb(levels: int, indent: str = "") -> str:
    """Nine aliases of nine aliases of ...: 9^levels values in a few hundred characters."""
    lines = [f"{indent}x0: &x0 [a, a, a, a, a, a, a, a, a]"]
    lines += [f"{indent}x{n}: &x{n} [{', '.join([f'*x{n - 1}'] * 9)}]" for n in range(1, levels)]
    return "\n".join(lines)


YAML = {
    "bomb": (f"strategy:\n{bomb(12, '  ')}\n", "more than 100,000 values"),
    "merged bomb": (f"{bomb(12)}\nstrategy:\n  <<: [*x11, *x11]\n", "more than 100,000 values"),
    "itself": ("strategy: &a {inner: *a}\n", "holds it itself"),
    "deep": (f"strategy: {'[' * 200}{']' * 200}\n", "more than 100 levels"),
    "deeper": (f"strategy: {'[' * 50_000}{']' * 50_000}\n", "more than 100 levels"),
    "code": ("space: !!python/object/apply:os.mkdir [harmed]\n", "could not determine a constructor"),
    "whole number": (f"lag: {'9' * 5_000}\n", "a whole number of 5,000 digits"),
    "hexadecimal": (f"lag: 0x{'f' * 5_000}\n", "digits"),
    "no date": ("space: 2001-99-99\n", "month"),
    "twice": ("lag: 2\nseed: 1\nlag: 3\n", "line 3: the key 'lag' is given twice"),
    "list as a key": ("? [a, b]\n: c\n", "unhashable key"),
    "zero byte": ("space: \0\n", "special characters"),
    "escapes": ('space: "\\e[31m\\a\\0.py:space"\n', "\\x1b[31m"),
    "long": (f"space: {'x' * 1_000_000}\n", "unknown space 'xxx"),
}


@pytest.mark.parametrize("name", YAML)
def test_yaml(say: Say, name: str) -> None:
    text, said = YAML[name]
    Path("asked.yaml").write_text(text)
    assert said in clear(say("search", "asked.yaml", "--table", "toy.csv", "--data", "pics"), 2, 3)
    Path("toy.yaml").write_text(text)
    clear(say(*SEARCH), 2, 3)


def test_what_aliases_are_good_for() -> None:
    assert from_yaml("a: &a {x: 1}\nb: {<<: *a, y: [*a, *a]}\n") == {
        "a": {"x": 1},
        "b": {"x": 1, "y": [{"x": 1}, {"x": 1}]},
    }
    assert from_yaml("") is None


@pytest.mark.parametrize("text", ["[" * 200 + "]" * 200, "[" * 100_000, f"[{'9' * 5_000}]", "{"])
def test_json(text: str, say: Say) -> None:
    with pytest.raises(ValueError, match=r"levels|digits|Expecting"):
        from_json(text)
    clear(say("search", "-s", f"strategy.population={text}", "--strategy", "regularized-evolution"), 2)


# -- descriptions of networks -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def described() -> dict[str, Any]:
    from nas_core import moves
    from nas_core.seeds import generator

    origin = rebuild.origin("nasbench201")
    task = Task(kind="image-classification", input_shape=(1, 8, 8), outputs=10)
    arch = moves.sample(origin.space, generator("malicious", 0))
    found = rebuild.describe(origin, None, arch, {"channels": 2, "cells": 1}, task)
    return {**json.loads(json.dumps(found)), "changes": {}}


def test_a_description_calls_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, described: Any) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "outside.py").write_text("import os\nos.mkdir('harmed')\n")
    (tmp_path / "in").mkdir()
    file = tmp_path / "in" / "net.json"
    for changed, said in (
        ({"space": "os:mkdir(path='harmed')"}, "no search space"),
        ({"space": "subprocess:call(args='mkdir harmed', shell=True)"}, "no search space"),
        ({"space": "x.py:space", "space_file": "../outside.py"}, "not beside it"),
        ({"space": "x.py:space", "space_file": str(tmp_path / "outside.py")}, "not beside it"),
        ({"space": "nasbench_graph(operators=('os:mkdir(path=\"harmed\")',))"}, "operator"),
    ):
        file.write_text(json.dumps({**described, **changed}))
        with pytest.raises(NasError, match=said):
            rebuild.load_network(file)
        assert not Path("harmed").exists()


def places(value: Any, before: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Where something is within plain data."""
    yield before
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, one in inner:
        yield from places(one, (*before, key))


def test_no_value_of_a_description_is_a_defect(tmp_path: Path, described: dict[str, Any]) -> None:
    file = tmp_path / "net.json"
    tried = 0
    for place in places(described):
        for odd in (None, -1, 1.5, "x", "../x", "", [], {}, [[]], {"a": []}, True, "\ud800"):
            changed = json.loads(json.dumps(described))
            holder = changed
            for key in place[:-1]:
                holder = holder[key]
            if place:
                holder[place[-1]] = odd
            file.write_text(json.dumps(changed if place else odd))
            tried += 1
            try:
                rebuild.load_network(file)
            except NasError as error:
                assert str(error)  # noqa: PT017 - what matters is that it is no other error
    assert tried > 300


# -- archives and pickles -----------------------------------------------------------------------------------


def array(shape: tuple[int, ...], kind: str, body: bytes) -> bytes:
    """A `.npy` file that says what it likes of its size."""
    header = io.BytesIO()
    numpy.lib.format.write_array_header_1_0(header, {"descr": kind, "fortran_order": False, "shape": shape})
    return header.getvalue() + body


def huge_npz() -> None:
    with zipfile.ZipFile("data.npz", "w") as archive:
        archive.writestr("images.npy", array((10**9, 3, 100, 100), "<f4", b"\0" * 100))
        archive.writestr("labels.npy", array((4,), "<i8", b"\0" * 32))


def slipping_npz() -> None:
    numpy.savez("data.npz", images=numpy.zeros((8, 8, 8)), labels=numpy.arange(8) % 2)
    with zipfile.ZipFile("data.npz", "a") as archive:
        archive.writestr("../slipped.npy", array((1,), "<i8", b"\0" * 8))
        archive.writestr("/tmp/slipped.npy", array((1,), "<i8", b"\0" * 8))


def pickled_npz() -> None:
    numpy.savez("data.npz", images=numpy.array([Harm()], dtype=object), labels=numpy.zeros(1))


def pickled_graph() -> None:
    Path("Cora/processed").mkdir(parents=True)
    torch.save((Harm(), None), "Cora/processed/data.pt")


def gzip_bomb() -> None:
    """40 MiB of zeros: the tests leave 128 MiB of memory."""
    Path("rows.csv.gz").write_bytes(gzip.compress(bytes(40 * 2**20)))


def pictures(names: tuple[bytes, ...] = (b"one", b"two")) -> None:
    """Four small ones of each class."""
    from PIL import Image

    for name in names:
        os.makedirs(b"pics/" + name)
        for number in range(4):
            with open(b"pics/" + name + b"/%d.png" % number, "wb") as file:
                Image.fromarray(numpy.full((8, 8), number, numpy.uint8)).save(file, "PNG")


def picture_bomb() -> None:
    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 30_000, 30_000, 8, 2, 0, 0, 0))
    pictures()
    Path("pics/one/0.png").write_bytes(
        b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(bytes(100))) + chunk(b"IEND", b"")
    )


DATA: dict[str, tuple[Callable[[], None], str, tuple[int, ...], str]] = {
    "an array of terabytes": (huge_npz, "npz:data.npz", (5,), "memory has run out"),
    "objects in an array": (pickled_npz, "npz:data.npz", (2,), "pickled objects are not read"),
    "a graph that is code": (pickled_graph, "pyg:Cora", (2,), "not readable as plain tensors"),
    "more than fits in a gzip file": (gzip_bomb, "csv:rows.csv.gz", (5,), "unpacks to more than 32 MiB"),
    "a picture of gigapixels": (picture_bomb, "folder:pics", (2,), "exceeds limit"),
}


@pytest.mark.parametrize("name", DATA)
def test_data(say: Say, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("training.data.files.free_bytes", lambda: 128 * 2**20)
    make, reference, codes, said = DATA[name]
    make()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    complaint = clear(say("data", "check", reference), *codes)
    assert said in complaint
    assert "weights_only" not in complaint  # no advice to let it run
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 2**20  # KiB


def test_names_in_an_archive_are_no_places(say: Say, tmp_path: Path) -> None:
    slipping_npz()
    assert say("data", "check", "npz:data.npz")[0] == 0
    assert not list(tmp_path.rglob("slipped*"))
    assert not Path("/tmp/slipped.npy").exists()


@pytest.mark.parametrize("write", [torch.save, lambda value, place: Path(place).write_bytes(pickle.dumps(value))])
def test_weights(say: Say, write: Callable[[object, str], object]) -> None:
    Path("net.py").write_text("from torch import nn\n\ndef net(task):\n    return nn.Flatten()\n")
    write({"weight": Harm()}, "w.pt")
    train = ("train", "net.py:net", "--data", "digits", "--epochs", "0", "--weights")
    assert "cannot be read as tensors alone" in clear(say(*train, "w.pt"), 2)
    Path("w.safetensors").write_bytes(struct.pack("<Q", 2**62) + b"{}")
    assert "no safetensors file" in clear(say(*train, "w.safetensors"), 2)


def archives() -> Iterator[tuple[str, str, Callable[[zipfile.ZipFile], None]]]:
    """What is done to a program, and what is said of it."""
    harm = io.BytesIO()
    torch.save((Harm(),), harm)
    config = json.dumps({"config": {"w": {"path_name": "weight_0", "use_pickle": True}}})
    yield (
        "data/sample_inputs/model.pt",
        "other things than tensors",
        lambda file: file.writestr("net/data/sample_inputs/model.pt", harm.getvalue()),
    )
    yield (
        "data/weights/model_weights_config.json",
        "names pickled files",
        lambda file: file.writestr("net/data/weights/model_weights_config.json", config),
    )
    yield "", "compiled code", lambda file: file.writestr("net/data/aotinductor/model/x.so", b"\x7fELF")
    yield "", "a pickled object", lambda file: file.writestr("net/data/constants/opaque_obj_0", pickle.dumps(Harm()))
    yield "", "one name", lambda file: file.writestr("net/models/model.json", b"{}")


@pytest.fixture(scope="module")
def exported() -> bytes:
    buffer = io.BytesIO()
    torch.export.save(torch.export.export(torch.nn.Linear(3, 2), (torch.zeros(1, 3),)), buffer)
    return buffer.getvalue()


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_programs(say: Say, exported: bytes) -> None:
    Path("in.csv").write_text("a,b,c\n1,2,3\n")
    for left_out, said, add in archives():
        with zipfile.ZipFile(io.BytesIO(exported)) as before, zipfile.ZipFile("net.pt2", "w") as after:
            root = before.namelist()[0].partition("/")[0]
            for name in before.namelist():
                inside = name.removeprefix(f"{root}/")
                if inside != left_out:
                    after.writestr(f"net/{inside}", before.read(name))
            add(after)
        assert said in clear(say("infer", "net.pt2", "in.csv"), 2)
    Path("net.pt2").write_bytes(exported[: len(exported) // 2])
    clear(say("infer", "net.pt2", "in.csv"), 2)
    Path("net.pt2").write_bytes(exported)
    assert "does not say what its inputs are" in clear(say("infer", "net.pt2", "in.csv"), 2)  # it was opened


# -- names ----------------------------------------------------------------------------------------------------

NAMES = ["new\nline", "-dash", "..", "../up", "/root", "\x1b[31m", "y" * 300, "a b", "a:b", "$(mkdir harmed)"]


@pytest.mark.parametrize("name", NAMES)
def test_names_of_studies(say: Say, name: str) -> None:
    complaint = clear(say(*SEARCH, f"--study={name}"), 2)
    assert "study" in complaint
    assert not Path("nas.db").exists()
    clear(say("show", "--", name), 2, 3, 5)


@pytest.mark.parametrize("name", ["new\nline", "-dash", "..up", "\x1b[31m", "a b", "$HOME", "%41?x=1"])
def test_names_of_files_are_only_names(say: Say, name: str) -> None:
    for ending in ("py", "csv", "yaml"):
        Path(f"toy.{ending}").rename(f"{name}.{ending}")
    search = ["search", "--study", "s", "--data", "pics", "--trials", "2", f"--space=./{name}.py:space"]
    code, _, err = say(*search, f"--table={name}.csv", f"--files={name}-files")
    assert code == 0, err
    assert say("verify", "s", f"--files={name}-files")[0] == 0
    assert not Path("harmed").exists()
    # In a pipe a table keeps its lines, whatever stands in them.
    code, out, _ = say("trials", "s")
    assert code == 0
    assert len(out.splitlines()) == 3


def test_names_that_are_too_long(say: Say) -> None:
    name = "y" * 300
    for option in (f"--db=sqlite:///{name}.db", f"--files={name}", f"--table={name}.csv", f"--space={name}.py:space"):
        clear(say(*SEARCH, "--study", "s", option), 2, 3, 5)


def test_names_that_are_no_text() -> None:
    """Of bytes that are no UTF-8, as a file may be called; in a process, whose arguments are bytes."""
    for command in ([b"show", b"caf\xe9"], [b"ls", b"--db", b"sqlite:///caf\xe9.db"]):
        done = subprocess.run([sys.executable, "-m", "nas_cli", *command], capture_output=True)
        assert clear((done.returncode, "", done.stderr.decode()), 2) == (
            "nas: 'caf\\udce9' is no UTF-8 text; rename what is called so, or go to where it is"
            if command[0] == b"show"
            else "nas: 'sqlite:///caf\\udce9.db' is no UTF-8 text; rename what is called so, or go to where it is"
        )


def test_classes_that_are_no_text(say: Say) -> None:
    pictures((b"plain", b"caf\xe9"))
    assert "'caf\\udce9' is no UTF-8; rename it" in clear(say("data", "check", "folder:pics"), 2)


def test_a_database_whose_study_is_called_like_a_folder_above(say: Say) -> None:
    assert say(*SEARCH, "--study", "s", "--trials", "2")[0] == 0
    for name in ("..", "../work", "/tmp", "a/../../work"):
        with sqlite3.connect("nas.db") as connection:
            connection.execute("UPDATE studies SET name = ?", (name,))
        connection.close()
        for command in (("rm", name, "--yes"), ("gc", "--yes"), ("resume", name)):
            clear(say(*command), 2, 7)
        assert Path("toy.py").exists()
        assert Path("nas-files/s").is_dir()


def test_a_loop_of_links_ends(say: Say) -> None:
    pictures()
    for name in ("one", "two"):
        Path("pics", name, "again").symlink_to(Path("pics").resolve())
        Path("pics", name, "itself").symlink_to("itself")
    code, out, err = say("data", "check", "folder:pics")
    assert code == 0, err
    assert "left out 4 files that are no images" in out + err
