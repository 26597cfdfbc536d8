"""A `torch.utils.data.Dataset` of a user's own as data: `my_data.py:train`, or all parts in a mapping or a module."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from nas_core.errors import NasError, UsageError
from training.data.items import Item, ItemOptions, gather
from training.data.labels import listed
from training.data.parts import NAMES, one_each, part_of, refuse_lookalikes
from training.data.source import ImageSource, image_source
from training.data.split import Split
from training.data.stream import StreamSource, stream_source
from training.inputs.images import BYTES, Fit
from training.inputs.pictures import Unreadable, pixels
from training.seeded import seeded

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor
    from torch.utils.data import Dataset

ITEMS = "items are (image, label): a tensor [channels, height, width] or a Pillow image, and a whole number"
RANDOM = "items differ when they are read again:"
ADVICE = "; leave them out of the data set and use recipe.augment (flip, crop, cutout)"


def parts_of(found: object, where: str) -> dict[str, Dataset[Any]] | None:
    """Part -> data set, of an object from a user's file; None for what is no data set.

    Told by its type: a Dataset is the training part, a class of Datasets is called, the keys of a mapping name the
    parts. Raises UsageError for data sets that cannot be used.
    """
    from torch.utils.data import Dataset, IterableDataset

    if isinstance(found, type) and issubclass(found, Dataset):
        found = called(found, where)
    if isinstance(found, Dataset):
        found = {"train": found}
    if not isinstance(found, Mapping):
        return None
    names = [str(name) for name in found]
    refuse_lookalikes((name for name in names if part_of(name) is None), where)
    unknown = [name for name in names if part_of(name) is None]
    if unknown:
        raise UsageError(f"{where} holds '{unknown[0]}', which is no part of the data (known: {', '.join(NAMES)})")
    parts = {part: found[name] for part, name in one_each(names, where).items()}
    if "train" not in parts:
        raise UsageError(f"{where} holds no 'train' ({', '.join(names) or 'nothing'})")
    for part, data in parts.items():
        if not isinstance(data, Dataset):
            raise UsageError(f"{where}: '{part}' is {_kind(data)}; needed is a torch.utils.data.Dataset")
        if isinstance(data, IterableDataset) or not hasattr(data, "__len__"):
            raise UsageError(f"{where}: {type(data).__name__} has no length; needed are __len__ and __getitem__")
        if not len(data):
            raise UsageError(f"{where}: the data set '{part}' is empty")
    return parts


def of_module(names: Mapping[str, object], where: str) -> dict[str, object]:
    """The data sets that a module names as parts: its `train`, `valid` and `test`."""
    from torch.utils.data import Dataset

    found = {name: value for name, value in names.items() if isinstance(value, Dataset)}
    parts = {name: value for name, value in found.items() if part_of(name)}
    refuse_lookalikes((name for name in found if name not in parts), where)
    if not parts:
        has = f" (it has the data sets {', '.join(found)}; write {where}:NAME)" if found else ""
        raise UsageError(f"{where} names no data set 'train'{has}")
    return parts


def called(function: Any, where: str, *arguments: object) -> object:
    """What a user's function returns. Raises UsageError for whatever it raises."""
    try:
        return function(*arguments)
    except NasError:
        raise
    except (Exception, SystemExit) as error:
        raise UsageError(f"{where}: the loader fails: {type(error).__name__}: {error}") from error


def dataset_source(
    reference: str,
    parts: Mapping[str, Dataset[Any]],
    options: ItemOptions,
    split: Split,
    again: Callable[[], Mapping[str, Dataset[Any]]],
) -> ImageSource | StreamSource:
    """The data sets of the parts, read once into memory or streamed. A part that is not given is drawn from "train".

    Names of the classes are those of `classes` of the data sets. In memory random transforms are drawn once.
    `again` makes the same data sets in another process. Raises UsageError for items that are no (image, label), and as
    `gather` and `stream_source`.
    """
    where = f"data '{reference}'"
    items = DatasetItems(parts, options.size, options.fit, again)
    classes, random = class_names(items.parts, where), items.random()
    ends = np.cumsum([0, *(len(data) for data in items.parts.values())])
    bounds = {part: (start, end) for part, start, end in zip(items.parts, ends[:-1], ends[1:], strict=True)}
    if options.stream:
        lists = {part: np.arange(*bound) for part, bound in bounds.items()}
        return stream_source(
            *(reference, items, items.targets(), split),
            valid=lists.get("valid"),
            test=lists.get("test"),
            classes=classes,
            value_range=BYTES if items.pictures else None,
            fit=options.fit,
            workers=options.workers,
            renumber=options.labels is not None,
            warnings=[f"{RANDOM} validation and test images are changed at random too{ADVICE}"] if random else [],
        )
    with seeded(0):
        read = gather(items, reference, skip=options.skip is not None)
    if len({type(label) for label in read.labels}) > 1:
        raise UsageError(f"{where}: some labels are whole numbers, others texts")
    lists = {part: np.flatnonzero((read.kept >= start) & (read.kept < end)) for part, (start, end) in bounds.items()}
    return image_source(
        *(reference, read.images, np.array(read.labels), split),
        valid=lists.get("valid"),
        test=lists.get("test"),
        classes=classes,
        value_range=BYTES if items.pictures else None,
        fit=options.fit,
        files=[items.name(number) for number in read.kept],
        renumber=options.labels is not None,
        warnings=[*([f"{RANDOM} their random transforms are drawn once{ADVICE}"] if random else []), *read.warnings],
    )


class DatasetItems:
    """The items of the parts one after another (`training.data.items.Items`)."""

    def __init__(
        self,
        parts: Mapping[str, Dataset[Any]],
        size: int | None,
        fit: Fit,
        again: Callable[[], Mapping[str, Dataset[Any]]],
    ) -> None:
        self.parts = _in_order(parts)
        self._again = again
        self._size, self._fit = None if size is None else (size, size), fit
        self.pictures: bool | None = None
        """Whether the items are Pillow images; known when one has been read."""

    def __len__(self) -> int:
        return sum(len(data) for data in self.parts.values())

    def name(self, number: int) -> str:
        part, _, place = self._place(number)
        return f"{part}[{place}]"

    def read(self, number: int) -> Item:
        _, data, place = self._place(number)
        try:
            item = data[place]
        except Exception as error:  # whatever a user's code raises
            raise Unreadable(f"{type(error).__name__}: {error}") from error
        if not isinstance(item, tuple | list) or len(item) != 2:
            raise Unreadable(f"is {_kind(item)}; {ITEMS}")
        return Item(self._pixels(item[0]), _label(item[1]))

    def random(self) -> bool:
        """Whether an item is another one when it is read again."""
        first, again = self._drawn(1), self._drawn(2)
        return first is not None and again is not None and not np.array_equal(first, again)

    def targets(self) -> list[int | str] | None:
        """The labels of all items without reading these, where every data set has them."""
        found = [_targets(data) for data in self.parts.values()]
        return None if None in found else [label for labels in found for label in labels or ()]

    def __getstate__(self) -> dict[str, Any]:
        # Data sets of a user's file cannot be pickled for another process: it makes them again.
        return {name: value for name, value in vars(self).items() if name != "parts"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self.parts = _in_order(self._again())

    def _drawn(self, seed: int) -> NDArray[Any] | None:
        with seeded(seed):
            try:
                return self.read(0).pixels
            except Unreadable:
                return None

    def _pixels(self, image: object) -> NDArray[Any]:
        from PIL import Image
        from torch import Tensor

        picture = isinstance(image, Image.Image)
        if self.pictures is None:
            self.pictures = picture
        if not isinstance(image, Image.Image | Tensor) or picture != self.pictures:
            unlike = "" if self.pictures is picture else ", unlike the first one"
            raise Unreadable(f"the image is {_kind(image)}{unlike}; {ITEMS}")
        if isinstance(image, Image.Image):
            return pixels(image, self._size, self._fit).transpose(2, 0, 1)
        if self._size is not None:
            raise Unreadable("the image is a tensor, and size= is for Pillow images; resize tensors in the data set")
        return _from_tensor(image)

    def _place(self, number: int) -> tuple[str, Any, int]:
        for part, data in self.parts.items():
            if number < len(data):
                return part, data, number
            number -= len(data)
        raise IndexError(number)


def _in_order(parts: Mapping[str, Any]) -> dict[str, Any]:
    return {part: parts[part] for part in NAMES if part in parts}


def class_names(parts: Mapping[str, Any], where: str) -> tuple[str, ...]:
    """`classes` of the data sets, none where they have none. Raises UsageError where two parts have different ones."""
    found = {part: names for part, data in parts.items() if (names := _classes(data, f"{where}: '{part}'"))}
    for part, names in found.items():
        first = next(iter(found))
        if names != found[first]:
            both = f"the classes of '{part}' are {listed(names)}, those of '{first}' {listed(found[first])}"
            raise UsageError(f"{where}: {both}; a label must mean the same in every part")
    return next(iter(found.values()), ())


def _classes(data: Any, what: str) -> tuple[str, ...]:
    """Those of the data set itself, or of what it is a part of (Subset, ConcatDataset)."""
    names = getattr(data, "classes", None)
    if names is None:
        inner = getattr(data, "dataset", None) or next(iter(getattr(data, "datasets", ())), None)
        return () if inner is None else _classes(inner, what)
    if isinstance(names, str) or not isinstance(names, Sequence) or not all(isinstance(name, str) for name in names):
        raise UsageError(f"{what}: its classes are {_kind(names)}; needed is a list of texts")
    return tuple(names)


def _targets(data: Any) -> list[int | str] | None:
    """`targets` or `labels`, as the data sets of torchvision have them; of a Subset or ConcatDataset from within."""
    found = next((getattr(data, name) for name in ("targets", "labels") if hasattr(data, name)), None)
    if found is None and hasattr(data, "dataset") and hasattr(data, "indices"):
        inner = _targets(data.dataset)
        return None if inner is None else [inner[number] for number in data.indices]
    if found is None and hasattr(data, "datasets"):
        each = [_targets(one) for one in data.datasets]
        return None if None in each else [label for labels in each for label in labels or ()]
    if found is None or len(found) != len(data):
        return None
    try:
        return [_label(label) for label in found]
    except Unreadable:
        return None


def _from_tensor(image: Tensor) -> NDArray[Any]:
    """[c, h, w], uint8 or float32."""
    shape = tuple(image.shape)
    if len(shape) not in (2, 3):
        raise Unreadable(f"the image is a tensor {shape}; {ITEMS}")
    if len(shape) == 3 and shape[2] in (1, 3, 4) and shape[0] > 4:
        raise Unreadable(f"the image is a tensor {shape}, which looks like [height, width, channels]; {ITEMS}")
    array = image.detach().cpu().numpy()
    array = array if array.dtype == np.uint8 else array.astype(np.float32)
    return array[None] if array.ndim == 2 else array


def _label(label: Any) -> int | str:
    if getattr(label, "shape", None) in ((), (1,)):  # a tensor or an array of one number
        label = label.item()
    if isinstance(label, str | int | np.integer):
        return label if isinstance(label, str) else int(label)
    raise Unreadable(f"the label is {_kind(label)}; {ITEMS}")


def _kind(value: object) -> str:
    """`Tensor (3, 8, 8)`, `tuple of 3`, `dict`."""
    shape = getattr(value, "shape", None)
    more = f" {tuple(shape)}" if shape is not None else f" of {len(value)}" if isinstance(value, tuple | list) else ""
    return type(value).__name__ + more
