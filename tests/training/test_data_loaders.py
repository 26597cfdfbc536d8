"""Loaders on small data sets made here: what they read, and what they say about what they cannot read."""

from __future__ import annotations

import gzip
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import numpy as np
import pytest

from nas_core.errors import NotFoundError, UsageError
from training.data import BUILTIN, GROUP, SCHEMES, describe, load
from training.data.split import Split

RNG = np.random.default_rng(0)


def idx_bytes(array: np.ndarray) -> bytes:
    return bytes((0, 0, 8, array.ndim)) + np.array(array.shape, ">u4").tobytes() + array.astype(np.uint8).tobytes()


def write_idx(folder: Path, packed: bool = True, mark: str = "-") -> dict[str, np.ndarray]:
    """A training part of 40 and a t10k part of 12 images of 5x4 pixels, 3 classes."""
    made = {}
    for part, count in (("train", 40), ("t10k", 12)):
        made[part] = RNG.integers(0, 256, (count, 5, 4))
        for kind, array in (("images", made[part]), ("labels", np.arange(count) % 3)):
            name, data = f"{part}-{kind}{mark}idx{array.ndim}-ubyte", idx_bytes(array)
            (folder / (name + ".gz" * packed)).write_bytes(gzip.compress(data) if packed else data)
    return made


def write_cifar(folder: Path) -> np.ndarray:
    """Six files of four records; the records in order."""
    names = [*(f"data_batch_{number}.bin" for number in range(1, 6)), "test_batch.bin"]
    records = RNG.integers(0, 256, (24, 3073)).astype(np.uint8)
    records[:, 0] = np.arange(24) % 2
    for position, name in enumerate(names):
        (folder / name).write_bytes(records[4 * position : 4 * position + 4].tobytes())
    return records


def cora_like(**changes: np.ndarray) -> dict[str, np.ndarray]:
    nodes = 30
    made = {
        "x": RNG.random((nodes, 5)),
        "y": np.arange(nodes) % 3,
        "edge_index": np.stack([np.arange(nodes), np.roll(np.arange(nodes), 1)]),
    }
    return {key: value for key, value in (made | changes).items() if value is not None}


def test_every_scheme_is_listed_and_loads_from_its_module():
    assert [scheme.name for scheme in SCHEMES] == list(BUILTIN)
    assert describe()[: len(SCHEMES)] == list(SCHEMES)
    assert GROUP == "nas.data"
    for scheme in SCHEMES:
        if scheme.name == "tasks":  # its argument is no path
            with pytest.raises(UsageError, match="data 'tasks:/nowhere/x': unknown set of tasks '/nowhere/x'"):
                load("tasks:/nowhere/x")
        elif scheme.argument:
            with pytest.raises(UsageError, match=f"data '{scheme.name}' needs a path: {scheme.name}:"):
                load(scheme.name)
            with pytest.raises(NotFoundError, match=f"data '{scheme.name}:/nowhere/x': /nowhere/x does not exist"):
                load(f"{scheme.name}:/nowhere/x")
        else:
            with pytest.raises(UsageError, match=f"{scheme.name} is embedded and takes no argument"):
                load(f"{scheme.name}:8")


def test_listing_the_schemes_imports_nothing_heavy():
    script = "import sys, training.data as d; d.describe(); print(*(name for name in HEAVY if name in sys.modules))"
    script = f"HEAVY = ('torch', 'torch_geometric', 'sklearn', 'pandas', 'PIL'); {script}"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


def test_digits_are_split_the_same_way_for_ever():
    source = load("digits")
    assert source.task.input_shape == (1, 8, 8)
    assert source.task.outputs == 10
    assert source.sizes == {"train": 1294, "valid": 144, "test": 359}
    assert source.split_hash == "9861eb8f0c61b3f8"
    assert sum(map(sum, source.class_counts.values())) == 1797
    for part, counts in source.class_counts.items():
        assert max(counts) - min(counts) <= {"train": 6, "valid": 1, "test": 2}[part]
    assert load("digits", Split(seed=1)).split_hash != source.split_hash


def test_karate_trains_on_one_node_per_class_and_halves_the_others():
    source = load("karate")
    task = source.task
    assert (task.kind, task.input_shape, task.outputs) == ("node-classification", (34,), 4)
    assert (task.nodes, task.edges) == (34, 156)
    assert source.class_counts["train"] == (1, 1, 1, 1)
    assert source.sizes == {"train": 4, "valid": 15, "test": 15}
    assert min(source.class_counts["valid"] + source.class_counts["test"]) >= 1


@pytest.mark.parametrize(("packed", "mark"), [(True, "-"), (False, "-"), (False, ".")])
def test_idx(tmp_path, packed, mark):
    made = write_idx(tmp_path, packed, mark)
    source = load(f"idx:{tmp_path}", Split(valid=0.25))
    assert source.reference == f"idx:{tmp_path}"
    assert source.task.input_shape == (1, 5, 4)
    assert source.sizes == {"train": 30, "valid": 10, "test": 12}
    assert np.array_equal(source.images[source.parts.test][:, 0], made["t10k"])
    order = np.sort(np.concatenate([source.parts.train, source.parts.valid]))
    assert np.array_equal(source.images[order][:, 0], made["train"])
    assert np.array_equal(source.labels[order], np.arange(40) % 3)


def test_limit_keeps_only_the_samples_in_use(tmp_path):
    write_idx(tmp_path)
    whole, small = load(f"idx:{tmp_path}"), load(f"idx:{tmp_path}", Split(limit=20))
    assert len(small.images) == 32
    assert small.split_hash != whole.split_hash
    assert np.array_equal(small.images[small.parts.test], whole.images[whole.parts.test])
    kept = {image.tobytes() for image in whole.images[whole.parts.train]}
    assert {image.tobytes() for image in small.images[small.parts.train]} < kept


def test_idx_errors_name_the_file(tmp_path):
    write_idx(tmp_path)
    labels, images = tmp_path / "train-labels-idx1-ubyte.gz", tmp_path / "train-images-idx3-ubyte.gz"
    whole = images.read_bytes()
    for content, message in (
        (whole[:-20], "damaged gzip"),
        (b"no gzip", "damaged gzip"),
        (gzip.compress(b""), "not an idx file of bytes with 3 axes"),
        (labels.read_bytes(), "starts with 00 00 08 01, not 00 00 08 03"),
        (gzip.compress(gzip.decompress(whole)[:-1]), "799 bytes follow"),
        (gzip.compress(idx_bytes(np.zeros((39, 5, 4)))), "40 labels for 39 images"),
    ):
        images.write_bytes(content)
        with pytest.raises(UsageError, match=f"train-.*{message}"):
            load(f"idx:{tmp_path}")
    images.write_bytes(gzip.compress(idx_bytes(np.zeros((40, 5, 5)))))
    with pytest.raises(UsageError, match=r"train images are \(5, 5\), t10k images \(5, 4\)"):
        load(f"idx:{tmp_path}")
    images.unlink()
    with pytest.raises(NotFoundError, match=r"holds none of train-images-idx3-ubyte, train-images-idx3-ubyte\.gz"):
        load(f"idx:{tmp_path}")
    with pytest.raises(NotFoundError, match="is a file, not a folder"):
        load(f"idx:{labels}")


@pytest.mark.parametrize("below", ["", "cifar-10-batches-bin"])
def test_cifar10(tmp_path, below):
    (tmp_path / below).mkdir(exist_ok=True)
    records = write_cifar(tmp_path / below)
    source = load(f"cifar10:{tmp_path}", Split(valid=0.3))
    assert source.task.input_shape == (3, 32, 32)
    assert source.task.outputs == 10
    assert source.classes[:2] == ("airplane", "automobile")
    assert source.sizes == {"train": 14, "valid": 6, "test": 4}
    assert np.array_equal(source.images[source.parts.test].reshape(4, -1), records[20:, 1:])
    assert np.array_equal(source.labels, records[:, 0])


def test_cifar10_errors_name_the_file(tmp_path):
    write_cifar(tmp_path)
    path = tmp_path / "data_batch_3.bin"
    path.write_bytes(b"\0" * 3000)
    with pytest.raises(UsageError, match=r"data_batch_3\.bin: 3000 bytes"):
        load(f"cifar10:{tmp_path}")
    path.write_bytes(b"\x0a" * 3073)
    with pytest.raises(UsageError, match=r"data_batch_3\.bin: label 10"):
        load(f"cifar10:{tmp_path}")
    path.unlink()
    (tmp_path / "data_batch_1").touch()
    with pytest.raises(NotFoundError, match=r"lacks data_batch_3\.bin .*those without \.bin are the Python version"):
        load(f"cifar10:{tmp_path}")


@pytest.mark.parametrize(
    ("shape", "layout", "expected"),
    [
        ((20, 6, 5), None, (1, 6, 5)),
        ((20, 6, 5, 3), None, (3, 6, 5)),
        ((20, 3, 6, 5), None, (3, 6, 5)),
        ((20, 3, 6, 4), "nchw", (3, 6, 4)),
        ((20, 6, 5, 8), "nhwc", (8, 6, 5)),
    ],
)
def test_npz_layouts(tmp_path, shape, layout, expected):
    images = RNG.integers(0, 256, shape).astype(np.uint8)
    more = {"layout": np.array(layout)} if layout else {}
    np.savez(tmp_path / "made.npz", images=images, labels=np.arange(20) % 2, **more)
    source = load(f"npz:{tmp_path / 'made.npz'}")
    assert source.task.input_shape == expected
    assert source.images.dtype == np.uint8
    assert source.images.flags.c_contiguous
    order = (0, 3, 1, 2) if shape[1:] != expected and len(shape) == 4 else tuple(range(len(shape)))
    assert np.array_equal(source.images, images.transpose(order).reshape(20, *expected))


def test_npz_with_test_part_and_class_names(tmp_path):
    images, tests = RNG.random((20, 6, 5)), RNG.random((6, 6, 5))
    path = tmp_path / "made.npz"
    labels, names = np.arange(20) % 2, np.array(["cat", "dog", "owl"])
    np.savez(path, images=images, labels=labels, test_images=tests, test_labels=np.arange(6) % 2, classes=names)
    source = load(f"npz:{path}")
    assert source.classes == ("cat", "dog", "owl")
    assert source.task.outputs == 3
    assert source.images.dtype == np.float32
    assert source.sizes["test"] == 6
    assert np.array_equal(source.images[source.parts.test][:, 0], tests.astype(np.float32))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"labels": None}, "has no 'labels' .needed: images, labels; found: images"),
        ({"labels": np.arange(19) % 2}, "19 labels for 20 images"),
        ({"labels": np.linspace(0, 1, 20)}, "labels are float64"),
        ({"labels": np.arange(20) - 1}, "label -1 is negative"),
        ({"labels": np.zeros(20, dtype=int)}, "only one class"),
        ({"labels": np.array(3)}, "labels are int64 ()"),
        ({"classes": np.array(["cat"])}, "label 1 has no name; 1 classes"),
        ({"classes": np.array([1, 2])}, "classes are int64"),
        ({"images": np.zeros((20, 5))}, "images have shape"),
        ({"images": np.zeros((20, 3, 6, 4))}, "do not show where the channels are"),
        ({"images": np.full((20, 6, 5), np.nan)}, "hold NaN"),
        ({"images": np.full((20, 6, 5), "a")}, "images are <U1"),
        ({"images": np.full((20, 6, 5), None)}, "pickled objects are not read"),
        ({"layout": np.array("chwn")}, "layout 'chwn'"),
        ({"test_images": np.zeros((5, 6, 5))}, "only one of them is there"),
        ({"test_images": np.zeros((5, 6, 6)), "test_labels": np.zeros(5, dtype=int)}, "test_images float64"),
        ({"test_images": np.zeros((5, 6, 5)), "test_labels": np.zeros(4, dtype=int)}, "test_labels have shape"),
    ],
)
def test_npz_errors_name_the_file(tmp_path, changes, message):
    made = {"images": np.zeros((20, 6, 5)), "labels": np.arange(20) % 2} | changes
    path = tmp_path / "made.npz"
    np.savez(path, **{key: value for key, value in made.items() if value is not None})
    with pytest.raises(UsageError, match=f"made.npz.*{message}"):
        load(f"npz:{path}")


@pytest.mark.parametrize("content", [b"", b"text", b"PK\x03\x04 broken"])
def test_damaged_npz(tmp_path, content):
    path = tmp_path / "made.npz"
    path.write_bytes(content)
    with pytest.raises(UsageError, match=r"made\.npz: not a readable \.npz"):
        load(f"npz:{path}")
    with pytest.raises(UsageError, match=r"made\.npz: not a readable \.npz"):
        load(f"graph:{path}")


def test_a_truncated_npz_and_a_single_array_are_refused(tmp_path):
    np.savez(tmp_path / "made.npz", images=np.zeros((20, 6, 5)), labels=np.arange(20) % 2)
    (tmp_path / "cut.npz").write_bytes((tmp_path / "made.npz").read_bytes()[:-50])
    with pytest.raises(UsageError, match=r"cut\.npz: not a readable"):
        load(f"npz:{tmp_path / 'cut.npz'}")
    np.save(tmp_path / "one.npy", np.zeros(3))
    with pytest.raises(UsageError, match=r"one\.npy: is a single array"):
        load(f"npz:{tmp_path / 'one.npy'}")


def test_graph_with_dense_and_with_compressed_features(tmp_path):
    made = cora_like(x=(RNG.random((30, 5)) < 0.3).astype(np.float32))
    np.savez(tmp_path / "dense.npz", **made)
    rows, columns = np.nonzero(made["x"])
    sparse = {
        "x_indptr": np.concatenate([[0], np.cumsum(np.bincount(rows, minlength=30))]),
        "x_indices": columns,
        "x_data": np.ones(len(rows), dtype=np.uint8),
        "x_shape": np.array([30, 5]),
    }
    np.savez(tmp_path / "sparse.npz", **cora_like(x=None), **sparse)
    dense, compressed = load(f"graph:{tmp_path / 'dense.npz'}"), load(f"graph:{tmp_path / 'sparse.npz'}")
    assert np.array_equal(dense.features, made["x"])
    assert np.array_equal(compressed.features, made["x"])
    assert (dense.task.nodes, dense.task.edges, dense.task.outputs) == (30, 30, 3)
    assert dense.split_hash == compressed.split_hash
    assert sum(dense.sizes.values()) == 30


def test_graph_uses_public_index_lists(tmp_path):
    path = tmp_path / "made.npz"
    lists = {"train_idx": np.arange(6), "valid_idx": np.arange(6, 12), "test_idx": np.arange(20, 30)}
    np.savez(path, **cora_like(), **lists)
    parts = load(f"graph:{path}").parts
    assert [part.tolist() for _, part in parts.items()] == [part.tolist() for part in lists.values()]
    np.savez(path, **cora_like(), train_idx=np.arange(12), test_idx=np.arange(20, 30))
    source = load(f"graph:{path}", Split(valid=0.25))
    assert source.class_counts == {"train": (3, 3, 3), "valid": (1, 1, 1), "test": (3, 3, 4)}
    np.savez(path, **cora_like(), train_idx=np.arange(6))
    assert load(f"graph:{path}").sizes == {"train": 6, "valid": 12, "test": 12}


def masks(*parts: range, nodes: int = 30) -> dict[str, np.ndarray]:
    """The masks of PyTorch Geometric for train, val and test nodes."""
    return {
        name: np.isin(np.arange(nodes), part)
        for name, part in zip(("train_mask", "val_mask", "test_mask"), parts, strict=True)
    }


@pytest.mark.parametrize("kind", [bool, np.uint8, np.int64])
def test_graph_uses_the_masks_of_pytorch_geometric(tmp_path, kind):
    path = tmp_path / "made.npz"
    made = {name: mask.astype(kind) for name, mask in masks(range(9), range(9, 18), range(20, 30)).items()}
    np.savez(path, **cora_like(), **made)
    source = load(f"graph:{path}")
    assert [part.tolist() for _, part in source.parts.items()] == [
        list(range(9)),
        list(range(9, 18)),
        list(range(20, 30)),
    ]
    assert source.warnings == ()


def test_masks_of_several_public_splits_have_a_column_each(tmp_path):
    path, first, second = tmp_path / "made.npz", range(6), range(3, 9)
    columns = {
        name: np.stack([one, other], axis=1)
        for (name, one), other in zip(
            masks(first, range(9, 18), range(20, 30)).items(),
            masks(second, range(9, 18), range(20, 30)).values(),
            strict=True,
        )
    }
    columns["test_mask"] = columns["test_mask"][:, 0]  # as in WikiCS: one test part for all splits
    np.savez(path, **cora_like(), **columns)
    source = load(f"graph:{path}")
    assert source.parts.train.tolist() == list(first)
    assert source.warnings == ("the masks hold 2 public splits; the first is used, ?split=1 takes the next",)
    for number, nodes in enumerate((first, second)):
        chosen = load(f"graph:{path}?split={number}")
        assert chosen.parts.train.tolist() == list(nodes)
        assert chosen.parts.test.tolist() == list(range(20, 30))
        assert chosen.warnings == ()
    with pytest.raises(UsageError, match=r"split=2: the masks hold 2 public splits, numbered from 0"):
        load(f"graph:{path}?split=2")
    np.savez(path, **cora_like())
    with pytest.raises(UsageError, match="split=0 chooses a column of the masks, and there are none"):
        load(f"graph:{path}?split=0")


def test_features_are_normalised_by_row_on_request(tmp_path):
    path = tmp_path / "made.npz"
    features = np.array([[1, 3], [0, 0], [-1, 1], *[[2, 2]] * 27], dtype=np.float32)
    np.savez(path, **cora_like(x=features))
    plain, rows = load(f"graph:{path}"), load(f"graph:{path}?normalise=rows")
    assert np.array_equal(plain.features, features)
    assert rows.features[:4].tolist() == [[0.25, 0.75], [0, 0], [-0.5, 0.5], [0.5, 0.5]]
    assert plain.split_hash != rows.split_hash
    assert (plain.inputs.normalise, rows.inputs.normalise) == ("none", "rows")
    with pytest.raises(UsageError, match=r"normalise: .*'rows'.* \(got 'columns'\)"):
        load(f"graph:{path}?normalise=columns")


def test_classes_that_are_in_no_part_are_told(tmp_path):
    path = tmp_path / "made.npz"
    np.savez(path, **cora_like(), train_idx=np.arange(0, 30, 3), test_idx=np.arange(1, 30, 3))
    told = load(f"graph:{path}").warnings
    assert told[0] == "class '2' has no sample in any part"
    assert told[1].startswith("class '1' has no training sample")


def test_names_of_classes_and_features_of_a_graph(tmp_path):
    path = tmp_path / "made.npz"
    texts = np.array(["maths", "biology", ""])[np.arange(30) % 3]
    np.savez(path, **cora_like(y=texts), feature_names=np.array(list("abcde")))
    source = load(f"graph:{path}")
    assert source.classes == source.inputs.classes == ("biology", "maths")
    assert source.inputs.feature_names == tuple("abcde")
    assert source.labels[:3].tolist() == [1, 0, -1]
    assert sum(source.sizes.values()) == 20


SPARSE = {"x": None, "x_indices": np.array([0]), "x_data": np.array([1]), "x_shape": np.array([30, 5])}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"y": None}, "has no 'y'"),
        ({"y": np.arange(29) % 3}, "29 labels for 30 nodes"),
        ({"y": np.arange(30) - 2}, "label -2"),
        ({"x": None}, "its nodes have no features; save some as x"),
        ({"x_shape": np.array([30, 5])}, "features are either x or"),
        ({"x": np.zeros(30)}, "features have shape"),
        (SPARSE, "has no 'x_indptr'"),
        (SPARSE | {"x_indptr": np.zeros(31, dtype=int)}, "do not describe a matrix of 30 x 5"),
        (SPARSE | {"x_indptr": np.array([0] * 30 + [1]), "x_indices": np.array([5])}, "do not describe"),
        (SPARSE | {"x_indptr": np.linspace(0, 1, 31)}, "need integers"),
        (SPARSE | {"x_indptr": np.array(0)}, "do not describe"),
        ({"edge_index": np.zeros((3, 4), dtype=int)}, "edge_index is int64"),
        ({"edge_index": np.zeros((2, 4))}, "edge_index is float64"),
        ({"edge_index": np.full((2, 4), 30)}, "edge_index names node 30; the 30 nodes"),
        ({"edge_index": np.full((2, 4), -1)}, "edge_index names node -1"),
        ({"train_idx": np.arange(40), "test_idx": np.arange(3)}, "train names node 39"),
        ({"train_idx": np.arange(4), "test_idx": np.arange(3, 9)}, "node 3 is listed twice"),
        ({"valid_idx": np.arange(4)}, "has valid nodes; give all three"),
        ({"train_idx": np.ones(30, dtype=bool)}, "train is bool"),
        ({"train_mask": np.ones(29, dtype=bool)}, "train_mask is bool .29,.; needed is a bool for each of the 30"),
        ({"train_mask": np.full(30, 2)}, "train_mask is int64"),
        (
            {"train_mask": np.ones(30), "train_idx": np.arange(3)},
            "train_idx and train_mask; name the parts by lists or",
        ),
        ({"val_idx": np.arange(4)}, "unknown key 'val_idx'; did you mean 'valid_idx'"),
        ({"valid_mask": np.arange(4)}, "unknown key 'valid_mask'; did you mean 'val_mask'"),
        ({"trian_idx": np.arange(4)}, "unknown key 'trian_idx'; did you mean 'train_idx'"),
        ({"y_train": np.arange(4)}, "unknown key 'y_train'"),
        ({"feature_names": np.array(["a"])}, "1 feature names for 5 features"),
        ({"train_idx": np.zeros((2, 2), dtype=int)}, "the train nodes have shape"),
        ({"train_idx": np.arange(4), "y": np.arange(30) % 3 - (np.arange(30) < 3)}, "include one without a label"),
    ],
)
def test_graph_errors_name_the_file(tmp_path, changes, message):
    path = tmp_path / "made.npz"
    np.savez(path, **cora_like(**changes))
    with pytest.raises(UsageError, match=rf"made\.npz.*{message}"):
        load(f"graph:{path}")


def pyg_folder(root: Path, count: int = 1, **changes: object) -> Path:
    """A data set as PyTorch Geometric processes it, with public masks."""
    import torch
    from torch_geometric.data import Data, InMemoryDataset

    masks = {name: torch.zeros(30, dtype=torch.bool) for name in ("train_mask", "val_mask", "test_mask")}
    masks["train_mask"][:9] = masks["val_mask"][9:18] = masks["test_mask"][20:] = True
    made = {key: torch.from_numpy(value) for key, value in cora_like().items()} | masks | changes
    (root / "processed").mkdir(parents=True)
    InMemoryDataset.save([Data(**made) for _ in range(count)], str(root / "processed" / "data.pt"))
    (root / "processed" / "pre_filter.pt").write_bytes(b"settings")
    return root


def test_pyg_reads_the_processed_file(tmp_path):
    source = load(f"pyg:{pyg_folder(tmp_path / 'Made')}")
    assert source.sizes == {"train": 9, "valid": 9, "test": 10}
    assert source.parts.valid.tolist() == list(range(9, 18))
    assert source.task.outputs == 3


@pytest.mark.parametrize("key", ["edge_y", "edge_label"])
def test_pyg_reads_classes_of_edges(tmp_path, key):
    """As the only labels, or where they are asked for; without masks, which are of nodes."""
    import torch

    edges = torch.from_numpy(cora_like()["edge_index"])
    kinds = torch.arange(edges.size(1)) % 3
    no_masks = dict.fromkeys(("train_mask", "val_mask", "test_mask"))
    alone = load(f"pyg:{pyg_folder(tmp_path / 'alone', y=None, **no_masks, **{key: kinds})}")
    assert (alone.task.kind, alone.task.outputs) == ("edge-classification", 3)
    assert sum(alone.sizes.values()) == edges.size(1)
    both = pyg_folder(tmp_path / "both", **no_masks, **{key: kinds})
    assert load(f"pyg:{both}").task.kind == "node-classification"
    asked = load(f"pyg:{both}?task=edge-classification")
    assert (asked.labels == alone.labels).all()
    assert asked.warnings == ("not used: y",)
    with pytest.raises(UsageError, match="the graph has no 'edge_y'"):
        load(f"pyg:{pyg_folder(tmp_path / 'none')}?task=edge-classification")


def test_pyg_tells_of_what_it_leaves_out(tmp_path):
    import torch

    root = pyg_folder(tmp_path / "Made", edge_attr=torch.zeros(30, 2), title="made", num_nodes=30)
    source = load(f"pyg:{root}?normalise=rows")
    assert source.warnings == ("not used: edge_attr, title",)
    assert np.allclose(source.features.sum(1), 1)


def test_pyg_takes_the_first_of_several_public_splits(tmp_path):
    import torch

    masks = torch.zeros(30, 10, dtype=torch.bool)
    masks[:7, 0] = True
    masks[:9, 1] = True
    folder = pyg_folder(tmp_path, train_mask=masks, y=torch.arange(30).view(30, 1) % 3)
    assert load(f"pyg:{folder}").parts.train.tolist() == list(range(7))
    assert load(f"pyg:{folder}?split=1").parts.train.tolist() == list(range(9))


def test_pyg_errors(tmp_path):
    with pytest.raises(NotFoundError, match=r"holds no processed/data\.pt .*nothing is downloaded"):
        load(f"pyg:{tmp_path}")
    (tmp_path / "raw").mkdir()
    with pytest.raises(NotFoundError, match="its raw files are there"):
        load(f"pyg:{tmp_path}")
    with pytest.raises(UsageError, match=r"\?features= is for data sets of many graphs"):
        load(f"pyg:{pyg_folder(tmp_path / 'many')}?features=degree")
    with pytest.raises(UsageError, match="the graph has no 'x'"):
        load(f"pyg:{pyg_folder(tmp_path / 'bare', x=None)}")
    (tmp_path / "many" / "processed" / "data.pt").write_bytes(b"nothing")
    with pytest.raises(UsageError, match="not readable as plain tensors"):
        load(f"pyg:{tmp_path / 'many'}")
    with pytest.raises(UsageError, match=r"2 processed files; name one data set: pyg:.*bare, pyg:.*many"):
        load(f"pyg:{tmp_path}")


def test_pyg_executes_nothing_from_the_file(tmp_path):
    import torch

    class Evil:
        def __reduce__(self) -> tuple[object, ...]:
            return Path.touch, (tmp_path / "executed",)

    (tmp_path / "processed").mkdir()
    torch.save(Evil(), tmp_path / "processed" / "data.pt")
    with pytest.raises(UsageError, match="not readable as plain tensors"):
        load(f"pyg:{tmp_path}")
    assert not (tmp_path / "executed").exists()


OWN = """
import numpy as np
from training.data.source import image_source

def load(argument, split):
    count = int(argument or 30)
    return image_source("anything", np.random.default_rng(0).random((count, 1, 4, 4)), np.arange(count) % 2, split)

def broken(argument, split):
    return 1 / 0

def wrong(argument, split):
    return [1, 2]

number = 3
"""


def test_a_loader_of_ones_own(tmp_path):
    path = tmp_path / "my_data.py"
    path.write_text(OWN)
    assert sum(load(f"{path}:load").sizes.values()) == 30
    source = load(f"{path}:load:50")
    assert sum(source.sizes.values()) == 50
    assert source.reference == f"{path}:load:50"
    for name, message in (
        ("broken", "the loader fails: ZeroDivisionError: division by zero"),
        ("wrong", "returns list without task"),
        ("number", "is int; needed is a torch.utils.data.Dataset"),
    ):
        with pytest.raises(UsageError, match=message):
            load(f"{path}:{name}")
    with pytest.raises(NotFoundError, match="no object 'lod'"):
        load(f"{path}:lod")
    with pytest.raises(NotFoundError, match="there is no file"):
        load(f"{tmp_path / 'other.py'}:load")
    with pytest.raises(UsageError, match="only one class"):
        load(f"{path}:load:1")


def test_an_installed_package_can_offer_a_scheme(monkeypatch):
    point = metadata.EntryPoint("tiny", "training.data.digits:load", GROUP)
    monkeypatch.setattr(metadata, "entry_points", lambda group: [point] if group == GROUP else [])
    assert [scheme.name for scheme in describe()] == [*BUILTIN, "tiny"]
    source = load("tiny")
    assert source.reference == "tiny"
    assert source.split_hash == load("digits").split_hash


def test_unknown_schemes_name_the_nearest(tmp_path):
    known = "digits, karate, reber, tasks, questions, random-graphs, sbm-pattern, sbm-cluster, idx"
    with pytest.raises(UsageError, match=rf"unknown data 'digit'; did you mean 'digits'\? \(known: {known}"):
        load("digit")
    with pytest.raises(UsageError, match="unknown data 'flder'; did you mean 'folder'"):
        load("flder:somewhere")
    with pytest.raises(UsageError, match=r"is a path; say what it holds: .* as in idx:"):
        load(str(tmp_path))
