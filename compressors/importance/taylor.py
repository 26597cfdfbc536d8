"""Taylor: how much the loss changes where a unit is switched off.

Molchanov et al., "Importance Estimation for Neural Network Pruning", CVPR 2019: equation 8 is the squared sum of theta
* g over the weights of a unit, with g = dL/dtheta; section 3.2 puts one gate behind each unit and its normalisation
instead. The derivative by a gate at 1 is the sum of theta * g over the weights that *read* the unit, whatever
activation lies between, and switching these off is the unit's removal to the first order, whereas the sum over all
weights that make it counts the scale of its normalisation and the rows before it for the same output. The gate is
therefore the default. Sums of theta * g are signed within a unit, in float64; squares or absolute values are of batches
and averaged over them, as in the paper.

Squares forget whether losing the unit raises the loss or lowers it, and the loss of a trained network in evaluation
mode is not flat. `mean: change` is the change itself to the second order, h / 2 - t, where t is the derivative by the
gate and the second one h is taken from the empirical Fisher information of single samples, estimated as n times the
mean square of batches of n (as in `compressors.importance.obd`).
"""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field
from torch import Tensor, nn

from compressors.compressor import Subject
from compressors.groups.groups import Groups
from compressors.importance.passes import BATCHES, Loss, differentiable, drawn, gradients
from compressors.importance.score import MADE, READ, Members, Scores, as_scores
from nas_core.config import Config as BaseConfig

SIDES = {"gate": READ, "weights": MADE}


class Taylor:
    """The mean over batches of what a setting makes of t, the sum of theta * g per unit."""

    class Config(BaseConfig):
        """On how many batches, and of what."""

        batches: int = Field(default=BATCHES, ge=1, description="training batches that the score is a mean over")
        of: Literal["gate", "weights"] = Field(
            default="gate", description="theirs that read a unit, which is its gate, or theirs that make it"
        )
        mean: Literal["squares", "absolutes", "change"] = Field(
            default="squares", description="of t = sum of theta * g over batches, or change: of n t^2 / 2 - t"
        )

    needs: ClassVar[tuple[str, ...]] = ("data",)

    def __init__(self, config: Config) -> None:
        self._config = config

    def __call__(self, network: nn.Module, groups: Groups, subject: Subject, round: int) -> Scores:
        members = Members(network, groups, SIDES[self._config.of])
        loss = Loss(network, subject)
        total: dict[str, Tensor] = {}
        count = 0
        with differentiable(network) as parameters:
            read = {name: parameters[name] for name in members.tensors if name in parameters}
            for batch in drawn(subject, round, self._config.batches):
                found = gradients(loss(batch), read)
                for name, sums in members.sums({key: one.detach() * found[key] for key, one in read.items()}).items():
                    change = self._change(sums.sum(0), batch.samples)
                    total[name] = total[name] + change if name in total else change
                count += 1
        return as_scores({name: value / max(count, 1) for name, value in total.items()})

    def _change(self, slope: Tensor, samples: int) -> Tensor:
        """What one batch says, of its sums of theta * g."""
        if self._config.mean == "change":
            return 0.5 * samples * slope.square() - slope
        return slope.square() if self._config.mean == "squares" else slope.abs()
