"""What methods of masks share: how many weights stay, which of them by their scores, and what is said of it."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from typing import Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn

from compressors.compressor import Change, Part, Plan, Round, Subject, check_leaves_widths
from compressors.groups.groups import Fixed
from compressors.masks.density import counts, density, prunable
from compressors.masks.kept import Kept
from nas_core.config import Config
from nas_core.errors import UsageError

NO_SPEED = "shapes are as they were: dense hardware computes the zeros too and gains no speed"
SEMI_STRUCTURED = (
    "only devices with kernels for this pattern gain speed by it; on dense hardware zeros are computed too"
)


class Masks(Config):
    """What every method of masks has."""

    density: float | None = Field(
        default=None,
        gt=0,
        lt=1,
        description="share of the weights that may be masked which stay; by default what a target of density leaves",
    )


class Scored(Masks):
    """What methods have that score every weight once."""

    pattern: str | None = Field(
        default=None,
        pattern=r"^[1-9]\d*:[1-9]\d*$",
        description="N:M, such as 2:4: at most N of M consecutive weights along the inputs stay",
    )
    classifier: bool = Field(default=True, description="whether the last linear map is masked too")


class Settings(Scored):
    """In one step or in several."""

    rounds: int = Field(
        default=1, ge=1, le=1000, description="how often weights are masked, the same share each time, and trained"
    )


class Masking:
    """A method of masks: a subclass says what every weight is worth (`scores`)."""

    Config: ClassVar[type[Masks]] = Settings
    needs: ClassVar[Collection[str]] = ("linear",)
    kept: ClassVar[bool] = False
    """Whether scores of the first round are costly, so that they are kept for another target (`Subject.cache`)."""
    rounds: Sequence[Round]

    def __init__(self, subject: Subject, config: Any) -> None:
        """Raises UsageError for a target that masks do not change, and where nothing says how many weights stay."""
        check_leaves_widths(subject)
        self.subject, self.config = subject, config
        self.rounds = (Round(),) * (getattr(config, "rounds", None) or 1)
        self._pattern = _pattern(getattr(config, "pattern", None))
        others = [str(target) for target in subject.targets if target.metric != "density"]
        if others:
            raise UsageError(
                f"target {others[0]}: masks leave shapes, macs and params as they are; take a target such as "
                "density<=0.2, or a method that removes units"
            )
        if not subject.targets and config.density is None and self._pattern is None:
            patterns = ", or -s pattern=2:4" if hasattr(config, "pattern") else ""
            raise UsageError(f"say how many weights stay: a target such as density<=0.2, or -s density=0.2{patterns}")

    # -- what a subclass says -------------------------------------------------------------------------------------

    def scores(self, network: nn.Module, weights: Mapping[str, nn.Parameter], round: int) -> Mapping[str, Tensor]:
        """By name what each entry of the weights is worth, in their shapes: the larger ones stay."""
        raise NotImplementedError

    def stays(self, network: nn.Module) -> Mapping[str, str]:
        """The prunable weights that the method does not mask, by name, and why."""
        reasons = {name: "its module is ignored" for name in prunable(network) if _within(name, self.subject.ignored)}
        last = classifier(network)
        if last is not None and not getattr(self.config, "classifier", True):
            reasons[last] = "it is the classifier (-s classifier=true)"
        return reasons

    def allotted(self, scores: Mapping[str, Tensor], keep: int) -> dict[str, Tensor]:
        """Masks, true where an entry stays, of which `keep` are; scores of minus infinity never stay. By default the
        largest scores of all tensors together."""
        return largest(scores, keep)

    # -- the contract ---------------------------------------------------------------------------------------------

    def compress(self, network: nn.Module, round: int) -> Change:
        """Raises UsageError: no weight that could be masked, weights that are not finite, a target that is met or
        cannot be."""
        weights = self._masked(network)
        keep = self._keep(network, weights, round)
        self.apply(network, weights, keep, round)
        return Change(recalibrate=True, report=self.report(network), notes=(self.note,))

    def plan(self, network: nn.Module) -> Plan:
        weights = self._masked(network)
        everything, here = counts(prunable(network)), counts(weights)
        total = sum(entries for _, entries in everything.values())
        nonzero = sum(count for count, _ in everything.values())
        inside = sum(count for count, _ in here.values())
        stays = self.stays(network)
        keep = self._last(network, weights)
        return Plan(
            tuple(Part(name, count, 0, {"density": count / total}) for name, (count, _) in here.items()),
            tuple(
                Fixed(name, everything[name][1], type(_owner(network, name)).__name__, name.rpartition(".")[0], reason)
                for name, reason in stays.items()
            ),
            {"density": (nonzero - inside + keep) / total},
            {"density": ((nonzero - inside) / total, (nonzero - inside / 2) / total, nonzero / total)},
            (self.note,),
        )

    def regime(self, network: nn.Module, round: int) -> Kept:
        return Kept()

    # -- how many, and which --------------------------------------------------------------------------------------

    def apply(self, network: nn.Module, weights: Mapping[str, nn.Parameter], keep: int, round: int) -> None:
        """Mask all but `keep` entries of the weights, in place."""
        scores = {
            name: score.double().masked_fill(weights[name].detach() == 0, -math.inf)
            for name, score in self._scored(network, weights, round).items()
        }
        for name, score in scores.items():
            if bool((score.isnan() | (score == math.inf)).any()):
                raise UsageError(f"the scores of '{name}' are not finite; nothing can be said of its weights")
        if self._pattern is not None:
            scores = {
                name: score.masked_fill(~along_inputs(score, *self._pattern), -math.inf)
                for name, score in scores.items()
            }
        left = sum(int((score > -math.inf).sum()) for score in scores.values())
        mask(weights, self.allotted(scores, min(keep, left)))

    def _scored(self, network: nn.Module, weights: Mapping[str, nn.Parameter], round: int) -> Mapping[str, Tensor]:
        if not self.kept or round:
            return self.scores(network, weights, round)
        said = self.config.model_dump_json(exclude={"density", "rounds", "pattern"})
        key, cache = f"{type(self).__qualname__} {said} without {sorted(self.stays(network))}", self.subject.cache
        found = cache.get(key)
        if found is None:
            found = {name: one.cpu().numpy() for name, one in self.scores(network, weights, round).items()}
            cache[key] = found
        return {name: torch.as_tensor(one).to(weights[name].device) for name, one in found.items()}

    def _masked(self, network: nn.Module) -> dict[str, nn.Parameter]:
        """The weights that may be masked."""
        found, stays = prunable(network), self.stays(network)
        for name, weight in found.items():
            if not bool(weight.isfinite().all()):
                raise UsageError(f"the weights '{name}' are not finite; a network that has diverged cannot be masked")
        chosen = {name: weight for name, weight in found.items() if name not in stays}
        if not chosen:
            why = f": {next(iter(stays))}: {next(iter(stays.values()))}" if stays else ""
            raise UsageError(f"there is no weight that could be masked{why}")
        return chosen

    def _last(self, network: nn.Module, weights: Mapping[str, nn.Parameter], round: int = 0) -> int:
        """How many of the weights stay in the end."""
        here, everything = counts(weights), counts(prunable(network))
        inside, entries = (sum(column) for column in zip(*here.values(), strict=True))
        outside = sum(nonzero for nonzero, _ in everything.values()) - inside
        total = sum(size for _, size in everything.values())
        wished: list[int] = []
        if self.config.density is not None:
            wished.append(_floor(self.config.density * entries))
        for target in self.subject.targets:
            limit = target.limit(self.subject.base)
            wished.append(_floor(limit * total) - outside)
            if wished[-1] < 0:
                raise UsageError(
                    f"target {target} cannot be met: {outside:,} of {total:,} weights are not masked, which is a "
                    f"density of {outside / total:.4g}"
                )
        if self._pattern is not None:
            wished.append(sum(_by_pattern(weight, *self._pattern) for weight in weights.values()))
        keep = min(wished)
        if keep >= inside and round == 0:
            raise UsageError(
                f"nothing is to be masked: the density of the weights that may be masked is {inside / entries:.4g} "
                f"already, that of the network {density(network):.4g}"
            )
        return min(keep, inside)

    def _keep(self, network: nn.Module, weights: Mapping[str, nn.Parameter], round: int) -> int:
        """How many stay after a round: in every round that is left the same share of what there is goes."""
        keep, left = self._last(network, weights, round), len(self.rounds) - round
        now = sum(nonzero for nonzero, _ in counts(weights).values())
        return keep if left == 1 or keep == 0 else math.ceil(now * (keep / now) ** (1 / left))

    def report(self, network: nn.Module) -> dict[str, dict[str, Any]]:
        """What a network has in which layer, as plain data."""
        return {
            name: {"density": nonzero / entries, "zeros": entries - nonzero, "weights": entries}
            for name, (nonzero, entries) in counts(prunable(network)).items()
        }

    @property
    def note(self) -> str:
        """What zeros among the weights are good for."""
        return NO_SPEED if self._pattern is None else SEMI_STRUCTURED


def mask(weights: Mapping[str, nn.Parameter], masks: Mapping[str, Tensor]) -> None:
    """Set the entries to 0 whose mask is false, in place."""
    for name, kept in masks.items():
        weights[name].detach().masked_fill_(~kept, 0)


def largest(scores: Mapping[str, Tensor], keep: int) -> dict[str, Tensor]:
    """Masks of the `keep` largest scores of all tensors together; of equal ones the first stay."""
    together = torch.cat([score.flatten() for score in scores.values()])
    kept = torch.zeros_like(together, dtype=torch.bool)
    kept[together.argsort(descending=True, stable=True)[:keep]] = True
    parts = kept.split([score.numel() for score in scores.values()])
    return {name: part.view(score.shape) for part, (name, score) in zip(parts, scores.items(), strict=True)}


def shared_out(sizes: Mapping[str, int], total: int) -> dict[str, int]:
    """`total` in proportion to the sizes, by largest remainders: each share is exact to 1."""
    ratio = total / max(sum(sizes.values()), 1)
    given = {name: math.floor(size * ratio) for name, size in sizes.items()}
    by_remainder = sorted(sizes, key=lambda name: given[name] - sizes[name] * ratio)
    for name in by_remainder[: total - sum(given.values())]:
        given[name] += 1
    return given


def along_inputs(scores: Tensor, kept: int, of: int) -> Tensor:
    """True for the `kept` largest of every `of` consecutive scores along the inputs, dimension 1 ([outputs, inputs,
    ...]); everywhere where the inputs are no multiple of `of`: such a tensor stays as it is."""
    if scores.shape[1] % of:
        return torch.ones_like(scores, dtype=torch.bool)
    last = scores.movedim(1, -1).unflatten(-1, (-1, of))
    order = last.argsort(dim=-1, descending=True, stable=True)
    chosen = torch.zeros_like(last, dtype=torch.bool).scatter_(-1, order[..., :kept], True)
    return chosen.flatten(-2).movedim(-1, 1)


def _by_pattern(weight: Tensor, kept: int, of: int) -> int:
    """How many entries a pattern leaves at most."""
    there = (weight.detach() != 0).float()
    return int((along_inputs(there, kept, of) & (there > 0)).sum())


def classifier(network: nn.Module) -> str | None:
    """The weight of the last linear map, None without any."""
    flat = [
        name
        for name, weight in prunable(network).items()
        if weight.dim() == 2 and not isinstance(_owner(network, name), nn.RNNBase)
    ]
    return flat[-1] if flat else None


def _owner(network: nn.Module, name: str) -> nn.Module:
    return network.get_submodule(name.rpartition(".")[0])


def _within(name: str, modules: Collection[str]) -> bool:
    return any(name.startswith(f"{module}.") for module in modules)


def _pattern(text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    kept, of = map(int, text.split(":"))
    if kept >= of:
        raise UsageError(f"pattern {text} masks nothing; write N:M with N below M, such as 2:4")
    return kept, of


def _floor(count: float) -> int:
    """Downwards, but for what floating point has taken off a whole number."""
    return math.floor(count + 1e-6)
