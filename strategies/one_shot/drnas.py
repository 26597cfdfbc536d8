"""DrNAS: mixing weights drawn from a Dirichlet distribution whose parameters are learned.

Chen, Wang, Cheng, Tang and Hsieh, "DrNAS: Dirichlet Neural Architecture Search", ICLR 2021, section 2.2. Per group

    theta ~ Dirichlet(beta),   beta = ELU(alpha) + 1,
    min over alpha of E[L_val(w*, theta)] + lambda d(beta, 1),   w* = argmin over w of E[L_train(w, theta)].

Gradients reach `beta` along the path of the draw (implicit reparameterisation, `torch.distributions`). `d` is the KL
divergence to the flat Dirichlet(1), or "l2": half the squared length of `alpha`, whose gradient is the weight decay
that the published code has by default (`alpha = 0` is `beta = 1` as well). Bilevel, first order; every batch, as
published, first a step of `alpha` on "alphas", then one of the weights on "weights", each with a draw of its own. What
is derived are the strongest candidates by the mean of the distribution, beta / sum(beta).

Left out: the progressive scheme of section 3 (partial channels that widen while candidates are pruned), which saves
memory and changes the supernet on the way.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.distributions import Dirichlet

from nas_core.architecture import Architecture
from nas_core.batch import Batch, Data
from nas_core.one_shot import Compute, Progress
from nas_core.relax import Mix
from nas_core.strategy import Setting
from search_spaces.supernet.supernet import Supernet
from strategies.one_shot.alphas import Alphas, AlphasConfig, plain
from strategies.one_shot.bilevel import pairs
from strategies.one_shot.weights import SharedWeights, WeightsConfig, mean, unconstrained


class DrNas:
    """Search over Dirichlet distributions (`nas_core.one_shot.OneShot`).

    Raises UsageError for a space that is not relaxable, and for constraints, of which its loss knows nothing.
    """

    class Config(WeightsConfig, AlphasConfig):
        """The defaults are those of the published search on NAS-Bench-201, with the regulariser of the paper."""

        epochs: int = Field(default=100, ge=1, le=100_000, description="of the supernet's training")
        alpha_weight_decay: float = Field(default=0.0, ge=0, le=1, description="beside the regulariser")
        regulariser: Literal["kl", "l2"] = Field(default="kl", description="what keeps beta near 1")
        regulariser_scale: float = Field(default=1e-3, ge=0, le=1e3, description="lambda")

    supernet: Supernet

    def __init__(self, setting: Setting, config: Config) -> None:
        unconstrained(setting, "drnas")
        self.setting, self.config = setting, config

    def start(self, make: Callable[[], nn.Module], data: Data, compute: Compute) -> None:
        supernet = make()
        assert isinstance(supernet, Supernet)
        self.data = data
        self.weights = SharedWeights(supernet, data, self.config, compute)
        self.supernet = self.weights.supernet
        self.alphas = Alphas(supernet.groups, self.config, self.weights.device)

    def step(self, epoch: int) -> Progress:
        self.weights.begin(epoch)
        sums, count = torch.zeros(2, device=self.weights.device), 0
        for training, validation in pairs(self._batches("weights", epoch), self._batches("alphas", epoch)):
            sums[1] += self._step_alphas(validation)
            with torch.no_grad():
                drawn = self._draw()
            sums[0] += self.weights.step(training, self.supernet.mix(drawn))
            count += 1
        metrics = {
            "train_loss": mean(sums[0], count, "training loss"),
            "alpha_loss": mean(sums[1], count, "loss of the architecture"),
        }
        weights = self.means()
        return Progress(metrics, plain(weights), self.supernet.derive(weights), epoch + 1 >= self.config.epochs)

    def result(self) -> Sequence[Architecture]:
        return [self.supernet.derive(self.means())]

    def relaxed(self) -> Mix:
        """The supernet mixed by the means of the distributions; differentiable in the alphas, nothing is drawn."""
        return self.supernet.mix(self.means())

    def means(self) -> dict[str, Tensor]:
        """Per group the mean of its distribution [candidates]: probabilities."""
        betas = {name: concentration(alpha) for name, alpha in self.alphas.vectors.items()}
        return {name: beta / beta.sum() for name, beta in betas.items()}

    def regularisation(self) -> Tensor:
        """lambda d(beta, 1), summed over the groups."""
        distances = [
            flat_divergence(concentration(alpha)) if self.config.regulariser == "kl" else alpha.square().sum() / 2
            for alpha in self.alphas
        ]
        return self.config.regulariser_scale * torch.stack(distances).sum()

    def state_dict(self) -> dict[str, Any]:
        return {"weights": self.weights.state_dict(), "alphas": self.alphas.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.weights.load_state_dict(state["weights"])
        self.alphas.load_state_dict(state["alphas"])

    def _batches(self, part: str, epoch: int) -> Callable[[], Iterator[Batch]]:
        return lambda: self.data.batches(part, epoch, self.setting.seed)

    def _step_alphas(self, batch: Batch) -> Tensor:
        """One step of the alphas; the loss without the regulariser, before it."""
        with self.weights.frozen():
            loss = self.weights.loss(batch, self.supernet.mix(self._draw()))
        self.alphas.zero_grad()
        (loss + self.regularisation()).backward()
        self.alphas.step()
        return loss.detach()

    def _draw(self) -> dict[str, Tensor]:
        return {name: sample(concentration(alpha)) for name, alpha in self.alphas.vectors.items()}


def concentration(alpha: Tensor) -> Tensor:
    """ELU(alpha) + 1, written so that it stays positive where rounding would swallow exp(alpha) beside 1."""
    return alpha.clamp(max=0).exp() + alpha.relu()


def sample(beta: Tensor) -> Tensor:
    """One draw of Dirichlet(beta) [candidates], differentiable in beta."""
    drawn: Tensor = Dirichlet(beta, validate_args=False).rsample()
    return drawn


def flat_divergence(beta: Tensor) -> Tensor:
    """KL(Dirichlet(beta) || Dirichlet(1)), scalar:

    log G(sum beta) - sum log G(beta) - log G(k) + sum (beta - 1) (psi(beta) - psi(sum beta)).
    """
    whole = beta.sum()
    moments = torch.digamma(beta) - torch.digamma(whole)
    constant = torch.lgamma(torch.tensor(float(len(beta)), dtype=beta.dtype, device=beta.device))
    return torch.lgamma(whole) - torch.lgamma(beta).sum() - constant + ((beta - 1) * moments).sum()
