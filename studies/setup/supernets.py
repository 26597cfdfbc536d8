"""The one-shot half of a study: what its supernet is trained on and with, from a user's configuration and back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from nas_core.config import SizeConfig
from nas_core.errors import UsageError
from nas_core.one_shot import Compute, OneShot, OneShotConfig
from nas_core.relax import not_relaxable
from nas_core.seeds import derive
from nas_core.space import SearchSpace
from nas_core.strategy import Setting
from nas_core.task import Task
from studies.records import StudySpec, SupernetSettings
from studies.setup.config import SupernetConfig
from training.data.split import Split
from training.spaces import check_kind

if TYPE_CHECKING:
    from torch import nn

    from nas_core.batch import Data
    from training.data.protocol import Source


@dataclass(frozen=True)
class SupernetParts:
    """The live objects that a supernet is trained with."""

    strategy: type[OneShot]
    config: OneShotConfig
    setting: Setting
    source: Source
    size: SizeConfig
    compute: Compute
    threads: int
    deterministic: bool
    fan_out: tuple[int, ...] | None = None  # neighbours that are drawn, as in the training of what is derived

    def make_strategy(self) -> OneShot:
        return self.strategy(self.setting, self.config)

    def make_supernet(self, space: SearchSpace | None = None) -> nn.Module:
        """A fresh supernet of the study's space, or of another one of the same architectures; its weights depend on
        the study's seed, and on the name of that one, alone."""
        import torch

        from search_spaces.supernet.supernet import Supernet

        with torch.random.fork_rng(devices=[]):
            seed = derive(self.setting.seed, "supernet")
            torch.default_generator.manual_seed(seed if space is None else derive(seed, "round", space.name))
            auxiliary = getattr(self.config, "auxiliary", False)
            return Supernet(space or self.setting.space, self.source.task, self.size, auxiliary=auxiliary)

    def bind(self) -> Data:
        """The data on the device, in the batches that the strategy's configuration asks for."""
        from training.data.augment import Augment
        from training.data.loading import Loading

        augment = Augment(crop=self.config.crop, flip=self.config.flip)
        batch_size = self.config.batch_size
        loading = Loading(batch_size=batch_size, augment=augment, channels_last=True, fan_out=self.fan_out)
        return self.source.bind(self.compute.device, loading)


def is_one_shot(strategy: Any) -> bool:
    """Whether a strategy's class trains a supernet, rather than ask and be told."""
    return hasattr(strategy, "start")


def settings_of(
    space: SearchSpace,
    config: OneShotConfig,
    wanted: SupernetConfig,
    data: str | None,
    split: Split,
    compute: tuple[str, int | None, bool],
) -> SupernetSettings:
    """The settings of a study's supernet. `data` is what candidates are trained on, None where they are
    not trained. Raises UsageError for a space that is not relaxable, data of another kind, or none."""
    from training import precision
    from training.data import load
    from training.devices import default_threads, find_device

    reason = not_relaxable(space)
    if reason is not None:
        raise UsageError(f"space '{space.name}' is not relaxable: {reason}; one-shot strategies cannot search it")
    reference = wanted.data or data
    if reference is None:
        raise UsageError("a one-shot strategy trains a supernet, and a table holds no data; name some by --search-on")
    divided = wanted.split or (split if wanted.data is None else Split())
    source = load(reference, divided)
    check_kind(space, source.task.kind, reference)
    device, threads, deterministic = compute
    found = find_device(wanted.device or device)
    request = "float32" if config.float32_only and wanted.precision == "auto" else wanted.precision
    return SupernetSettings(
        data=reference,
        split=divided,
        split_hash=source.split_hash,
        learns_on=learns_on(source.task, config),
        device=str(found),
        precision=precision.resolve(request, found, source.task.kind),
        threads=wanted.threads or threads or default_threads(source.task),
        deterministic=deterministic if wanted.deterministic is None else wanted.deterministic,
    )


def learns_on(task: Task, config: OneShotConfig) -> str:
    """What the architecture is learned on, in words."""
    from training.tasks import kind_of

    if not config.halves:
        return "the training part"
    return kind_of(task).alphas


def caution(spec: StudySpec) -> str | None:
    """What is to be known of the validation figures of a study; None: nothing."""
    on = ("" if spec.supernet is None else spec.supernet.learns_on) or ""
    if not on.startswith("validation"):
        return None
    return (
        f"this search learned on the {on}: validation figures flatter what it derived; "
        "compare it by its test figures (nas train)"
    )


def parts_of(
    settings: SupernetSettings,
    strategy: type[OneShot],
    config: OneShotConfig,
    setting: Setting,
    size: SizeConfig,
    fan_out: tuple[int, ...] | None,
) -> SupernetParts:
    """The live objects from stored settings. Raises UsageError when the data are not what they were."""
    from training.data import load

    source = load(settings.data, settings.split)
    if source.split_hash != settings.split_hash:
        raise UsageError(
            f"the data '{settings.data}' of the supernet is not what the study was made with (split "
            f"{settings.split_hash} then, {source.split_hash} now); restore it, or start another --study"
        )
    compute = Compute(settings.device, settings.precision)
    kept = settings.threads, settings.deterministic, fan_out
    return SupernetParts(strategy, config, setting, source, size, compute, *kept)
