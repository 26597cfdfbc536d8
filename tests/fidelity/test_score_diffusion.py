"""Continuous diffusion: its processes, its samplers with scores that are known, and the score network."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from typing import Any

import numpy
import pytest
import torch
from torch import Tensor

from nas_core import moves
from nas_core.seeds import generator
from search_spaces.nasbench201.space import NasBench201
from strategies.diffusion import reverse, score
from strategies.diffusion.config import ScoreConfig
from strategies.diffusion.operation_matrix import OperationMatrix
from strategies.diffusion.score import Score, ScoreNetwork, preconditioning, trained, untrained
from strategies.diffusion.sde import VE, VP, Cosine, Laplace, LogNormal, Schedule, UniformTime, level
from studies.store import snapshots
from training.threads import thread_count

MATRICES = OperationMatrix(NasBench201())
SCHEDULES = [VE(), VP(), Cosine()]
TINY = ScoreConfig(blocks=2, width=16, heads=2, hidden=16, head=32, steps=7, batch=8, warm_up=2)
Sampler = Callable[..., Tensor]
SAMPLERS: list[tuple[Sampler, int]] = [(reverse.heun, 18), (reverse.predictor_corrector, 1000)]


def random(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def cells(count: int, seed: int = 0) -> Any:
    rng = generator(seed)
    return MATRICES.encode([moves.sample(MATRICES.space, rng) for _ in range(count)])


# -- processes --------------------------------------------------------------------------------------------------------


def test_the_published_process_has_the_published_standard_deviations() -> None:
    assert VE().std(torch.tensor([0.0, 0.5, 1.0])).tolist() == pytest.approx([0.1, math.sqrt(0.5), 5.0])
    assert VE().prior == 5.0
    assert VE().diffusion(torch.tensor(1.0)).item() == pytest.approx(5 * math.sqrt(2 * math.log(50)))


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_marginals_are_those_of_the_stochastic_differential_equation(schedule: Schedule) -> None:
    """d alpha / dt = f alpha and d std^2 / dt = 2 f std^2 + g^2 (Song et al., ICLR 2021, eq. 33 and 34)."""
    t = torch.linspace(schedule.start, 1, 101, dtype=torch.float64)[1:-1].requires_grad_()
    (slope,) = torch.autograd.grad((schedule.mean(t) + 0 * t).sum(), t)
    torch.testing.assert_close(slope, schedule.drift(t) * schedule.mean(t))
    (slope,) = torch.autograd.grad(schedule.std(t).square().sum(), t)
    torch.testing.assert_close(slope, 2 * schedule.drift(t) * schedule.std(t).square() + schedule.diffusion(t).square())


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_a_path_of_the_forward_process_ends_with_the_marginal(schedule: Schedule) -> None:
    x, steps, ends = torch.full((20_000,), 2.0), 1000, schedule.start
    x = x * schedule.mean(torch.tensor(ends)) + schedule.std(torch.tensor(ends)) * torch.randn(
        x.shape, generator=random()
    )
    length, noise = (1 - ends) / steps, random(1)
    for t in ends + length * (torch.arange(steps) + 0.5):
        x = x + schedule.drift(t) * x * length
        x = x + schedule.diffusion(t) * math.sqrt(length) * torch.randn(x.shape, generator=noise)
    last = torch.ones(())
    assert x.mean().item() == pytest.approx(2 * schedule.mean(last).item(), abs=0.12 if schedule.prior > 1 else 0.03)
    assert x.std().item() == pytest.approx(schedule.std(last).item(), rel=0.03)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_the_scale_belongs_to_the_noise_level(schedule: Schedule) -> None:
    t = torch.linspace(schedule.start, 1, 50)
    torch.testing.assert_close(schedule.scale(level(schedule, t)), schedule.mean(t))


def test_the_cosine_process_is_that_of_nichol_and_dhariwal() -> None:
    """alpha(t)^2 = cos^2((t + s) / (1 + s) pi / 2) up to its value at 0, with time scaled to end before a quarter."""
    cosine = Cosine()
    angles = torch.acos(cosine.mean(torch.linspace(0, 1, 11, dtype=torch.float64)))
    assert angles[0].item() == pytest.approx(0.008 / 1.008 * math.pi / 2)
    assert torch.diff(angles).tolist() == pytest.approx([(angles[-1] - angles[0]).item() / 10] * 10)
    assert level(cosine, torch.ones(())).item() == pytest.approx(10, rel=1e-4)


def test_the_variance_preserving_process_spends_its_beta() -> None:
    assert VP().mean(torch.tensor(1.0)).item() == pytest.approx(math.exp(-(0.1 + 5) / 4))


# -- noise levels of training -----------------------------------------------------------------------------------------


def test_laplace_levels_have_the_published_density() -> None:
    ratios = -2 * Laplace()(200_000, random()).double().log()  # of signal to noise, p(l) = exp(-|l| / b) / (2 b)
    assert ratios.mean().item() == pytest.approx(0, abs=0.01)
    assert ratios.abs().mean().item() == pytest.approx(0.5, abs=0.01)
    assert ratios.std().item() == pytest.approx(0.5 * math.sqrt(2), abs=0.015)
    for share in (0.01, 0.1, 0.5, 0.9, 0.99):
        exact = 0.5 * (math.log(2 * share) if share <= 0.5 else -math.log(2 - 2 * share))
        assert numpy.quantile(ratios.numpy(), share) == pytest.approx(exact, abs=0.06)
    shifted = -2 * Laplace(1.5, 0.1)(50_000, random()).log()
    assert shifted.mean().item() == pytest.approx(1.5, abs=0.01)


def test_log_normal_levels_are_those_of_edm() -> None:
    logarithms = LogNormal()(200_000, random()).log()
    assert logarithms.mean().item() == pytest.approx(-1.2, abs=0.02)
    assert logarithms.std().item() == pytest.approx(1.2, abs=0.02)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_uniform_times_cover_the_levels_of_the_process(schedule: Schedule) -> None:
    found = UniformTime(schedule)(50_000, random()).sort().values
    times = torch.linspace(schedule.start, 1, 50_000)
    places = torch.tensor([0, 5_000, 25_000, 45_000, 49_999])
    lowest = level(schedule, times[:1]).item()
    torch.testing.assert_close(found[places], level(schedule, times)[places], rtol=0.05, atol=0.2 * lowest)


# -- samplers, with scores that are known -----------------------------------------------------------------------------


class Points:
    """The score of points [k, N, V] of equal weight."""

    def __init__(self, points: Tensor) -> None:
        self.points = points
        self.calls = 0

    def __call__(self, x: Tensor, sigma: Tensor) -> Tensor:
        self.calls += 1
        squares = (x[:, None] - self.points).square().sum((2, 3))
        weights = (-squares / (2 * sigma.square()[:, None])).softmax(1)
        return (torch.einsum("nk,kij->nij", weights, self.points) - x) / sigma[:, None, None].square()


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize(("sampler", "steps"), SAMPLERS)
def test_the_perfect_score_of_one_cell_gives_that_cell(sampler: Sampler, steps: int, schedule: Schedule) -> None:
    cell = torch.from_numpy(cells(1, 3))
    perfect = Points(cell)
    rows = sampler(perfect, (16, 8, 7), random(), schedule=schedule, steps=steps)
    archs = MATRICES.decode(rows.numpy())
    assert archs == MATRICES.decode(cell.numpy()) * 16
    assert perfect.calls == (35 if sampler is reverse.heun else 2000)


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize(("sampler", "steps"), SAMPLERS)
def test_two_opposite_points_are_drawn_half_and_half(sampler: Sampler, steps: int, schedule: Schedule) -> None:
    point = torch.tensor([[[1.0, -1.0], [1.0, 1.0]]])
    count = 1000
    rows = sampler(Points(torch.cat([point, -point])), (count, 2, 2), random(), schedule=schedule, steps=steps)
    sides = (rows * point).mean((1, 2))
    near = (rows - sides.sign()[:, None, None] * point).abs().amax((1, 2)) < 0.5
    assert near.float().mean() > 0.98
    assert (sides > 0).float().mean().item() == pytest.approx(0.5, abs=4 * 0.5 / math.sqrt(count))


def test_one_step_is_that_of_the_published_algorithm() -> None:
    """Langevin with its signal-to-noise ratio, then Euler-Maruyama without the last noise; score -x / (1 + sigma^2)."""
    given, size = random(), (3, 4, 2)
    start, noise = 5 * torch.randn(size, generator=given), torch.randn(size, generator=given)
    lengths = [rows.square().sum((1, 2)).sqrt().mean() for rows in (noise, start / 26)]
    step = 2 * (0.16 * lengths[0] / lengths[1]) ** 2
    corrected = start - step * start / 26 + torch.sqrt(2 * step) * noise
    expected = corrected * (1 - 50 * math.log(50) / 26 * (1 - 1e-5))  # g^2 = 2 * 25 * ln 50
    found = reverse.predictor_corrector(lambda x, s: -x / (1 + s.square())[:, None, None], size, random(), steps=1)
    torch.testing.assert_close(found, expected)


class Rows:
    """The score of independent rows, each one-hot with weights [V] of its ones."""

    def __init__(self, weights: Tensor) -> None:
        self.logits = weights.log()

    def __call__(self, x: Tensor, sigma: Tensor) -> Tensor:
        square = sigma[:, None, None].square()
        return (2 * (2 * x / square + self.logits).softmax(-1) - 1 - x) / square


def test_exact_guidance_gives_the_tilted_distribution() -> None:
    """p(x_0 | y) is proportional to p(x_0) p(y | x_0); its score is that of p plus the gradient of log p(y | x_t)."""
    even, wanted = torch.full((4,), 0.25), torch.tensor([0.1, 0.2, 0.3, 0.4])
    base, tilted = Rows(even), Rows(wanted)

    def guidance(x: Tensor, sigma: Tensor) -> Tensor:
        return tilted(x, sigma) - base(x, sigma)

    for guide, expected in ((None, even), (guidance, wanted)):
        rows = reverse.heun(base, (2500, 4, 4), random(), 30, guidance=guide, schedule=VE(0.1, 80.0))
        ones = rows > 0
        assert (ones.sum(-1) == 1).float().mean() > 0.99
        assert ones.float().mean((0, 1)).tolist() == pytest.approx(expected.tolist(), abs=0.03)


@pytest.mark.parametrize(("sampler", "steps"), [(reverse.heun, 18), (reverse.predictor_corrector, 200)])
def test_guidance_moves_samples_towards_a_linear_target(sampler: Sampler, steps: int) -> None:
    direction = torch.tensor([1.0, 0.0, 0.0, -1.0])
    shares = []
    for weight in (-0.5, 0.0, 0.5):
        seen: list[float] = []

        def guidance(x: Tensor, sigma: Tensor, weight: float = weight, seen: list[float] = seen) -> Tensor:
            seen.append(sigma[0].item())
            return weight * direction.expand_as(x)

        rows = sampler(Rows(torch.full((4,), 0.25)), (200, 4, 4), random(), steps=steps, guidance=guidance)
        shares.append((rows.argmax(-1) == 0).float().mean().item())
        assert max(seen) == pytest.approx(5, rel=1e-4)
        assert min(seen) == pytest.approx(0.1, rel=1e-3)
    assert shares[0] + 0.1 < shares[1] < shares[2] - 0.1
    assert shares[1] == pytest.approx(0.25, abs=0.06)


# -- losses -----------------------------------------------------------------------------------------------------------


def perfect(points: Tensor, schedule: str, parametrisation: str) -> Score:
    """A Score whose network gives what makes the score that of these points."""
    exact = Points(points)
    config = ScoreConfig(process=schedule, parametrisation=parametrisation)
    found = Score(None, config, points.mean(0), points.std(0, correction=0))  # type: ignore[arg-type]

    def network(x: Tensor, noise: Tensor, _: object = None) -> Tensor:
        if parametrisation == "edm":
            sigma = (4 * noise / score.FINER).exp()
            skip, out, into = preconditioning(sigma[:, None, None], found.deviation)
            x = x / into + found.mean
            denoised = x + sigma[:, None, None].square() * exact(x, sigma)
            return ((denoised - found.mean - skip * (x - found.mean)) / out).nan_to_num()
        alpha = (1 - noise.square()).sqrt() if schedule != "ve" else torch.ones_like(noise)
        return exact(x / alpha[:, None, None], noise / alpha) / alpha[:, None, None]

    found.network = network  # type: ignore[assignment]
    return found


@pytest.mark.parametrize("schedule", ["ve", "vp", "cosine"])
@pytest.mark.parametrize("parametrisation", ["score", "edm"])
def test_a_perfect_network_is_the_score_in_every_parametrisation(schedule: str, parametrisation: str) -> None:
    points = torch.from_numpy(cells(3))
    one = perfect(points, schedule, parametrisation)
    sigma = UniformTime(VE())(40, random())
    x = points[torch.arange(40) % 3] + sigma[:, None, None] * torch.randn(40, 8, 7, generator=random())
    exact = Points(points)(x, sigma)
    torch.testing.assert_close(one(x, sigma), exact, rtol=1e-3, atol=2e-3)
    denoised = x + sigma[:, None, None].square() * exact
    torch.testing.assert_close(one.denoised(x, sigma), denoised, rtol=1e-3, atol=2e-3)


def test_the_published_loss_of_the_perfect_score_of_one_point_is_zero() -> None:
    cell = torch.from_numpy(cells(1))
    one = perfect(cell, "ve", "score")
    z = torch.randn(100, 8, 7, generator=random())
    assert one.loss(cell.expand(100, -1, -1), UniformTime(VE())(100, random()), z).item() == pytest.approx(0, abs=1e-8)


@pytest.mark.parametrize("sigma", [1.5, 3.0, 6.0])
@pytest.mark.parametrize("parametrisation", ["score", "edm"])
def test_the_loss_of_the_perfect_score_of_two_points_is_its_known_minimum(sigma: float, parametrisation: str) -> None:
    """With m entries of size 1 in x_0 = +-a an entry has the least error 1 - E tanh(r + sqrt(r) z), r = m / sigma^2."""
    point = torch.ones(1, 4, 3)
    one = perfect(torch.cat([point, -point]), "ve", parametrisation)
    ratio = 12 / sigma**2
    nodes, weights = numpy.polynomial.hermite_e.hermegauss(80)
    least = 1 - float((weights * numpy.tanh(ratio + math.sqrt(ratio) * nodes)).sum() / weights.sum())
    expected = least / sigma**2 if parametrisation == "score" else least * (1 + sigma**2) / sigma**2
    clean = point * (1 - 2 * (torch.arange(40_000) % 2))[:, None, None]
    z = torch.randn(clean.shape, generator=random())
    found = one.loss(clean, torch.full((40_000,), sigma), z).item()
    assert found == pytest.approx(expected, rel=0.04)

    exact = one.network
    one.network = lambda *given: 0.9 * exact(*given)  # type: ignore[assignment]
    assert one.loss(clean, torch.full((40_000,), sigma), z).item() > found


def test_preconditioning_is_that_of_edm() -> None:
    """Karras et al., NeurIPS 2022, table 1."""
    s, d = torch.tensor(0.3), torch.tensor(0.5)
    skip, out, into = preconditioning(s, d)
    assert skip.item() == pytest.approx(0.25 / (0.09 + 0.25))
    assert out.item() == pytest.approx(0.3 * 0.5 / math.sqrt(0.34))
    assert into.item() == pytest.approx(1 / math.sqrt(0.34))


@pytest.mark.parametrize("sigma", [0.1, 1.0, 5.0])
def test_preconditioning_makes_what_is_read_and_what_is_learned_of_unit_variance(sigma: float) -> None:
    """Appendix B.6 there, eq. 116 to 131; entry by entry, in the matrices of a space."""
    matrices = cells(4000)
    one = untrained(matrices, MATRICES.reach, TINY, 0)
    clean = torch.from_numpy(matrices).repeat(2, 1, 1)
    s = torch.tensor(sigma)
    away = clean - one.mean + s * torch.randn(clean.shape, generator=random())
    skip, out, into = preconditioning(s, one.deviation)
    varies = one.deviation > 0
    assert varies.sum() == 6 * 5
    torch.testing.assert_close((into * away).var(0), torch.ones(8, 7), rtol=0, atol=0.07)
    target = ((clean - one.mean - skip * away) / out)[:, varies]
    torch.testing.assert_close(target.var(0), torch.ones(30), rtol=0, atol=0.07)
    assert target.mean(0).abs().max() < 0.05
    # before anything is learned the network gives 0, so the loss is that variance
    z = torch.randn(2000, 8, 7, generator=random(1))
    assert one.loss(clean[:2000], s.expand(2000), z).item() == pytest.approx(1, abs=0.03)


def test_what_never_varies_is_known_exactly() -> None:
    matrices = cells(500)
    one = untrained(matrices, MATRICES.reach, TINY, 0)
    with torch.no_grad():
        found = one.denoised(torch.randn(20, 8, 7, generator=random()), UniformTime(VE())(20, random()))
    torch.testing.assert_close(found[:, [0, 7]], torch.from_numpy(matrices[:20, [0, 7]]))


# -- the network ------------------------------------------------------------------------------------------------------


def network(config: ScoreConfig = TINY, reach: Any = MATRICES.reach) -> ScoreNetwork:
    """With last weights that are not zero."""
    made = ScoreNetwork(7, reach, config, 5)
    with torch.no_grad():
        made.head[-1].weight.normal_(generator=random())
    return made


@pytest.mark.parametrize("blocks", [1, 3])
def test_attention_goes_to_what_a_node_reaches_and_nowhere_else(blocks: int) -> None:
    made = network(TINY.model_copy(update={"blocks": blocks}))
    x, noise = torch.randn(4, 8, 7, generator=random()), torch.ones(4)
    with torch.no_grad():
        before = made(x, noise)
        for node in range(8):
            changed = x.clone()
            changed[:, node] += 1
            moved = (made(changed, noise) != before).any(2)
            torch.testing.assert_close(moved, torch.from_numpy(MATRICES.reach[:, node]).expand(4, -1))


def test_nodes_without_successors_see_themselves() -> None:
    """The published closure leaves them without any."""
    made = network(reach=MATRICES.reach & ~numpy.eye(8, dtype=bool))
    assert made(torch.ones(2, 8, 7), torch.ones(2)).isfinite().all()
    assert made.reach.diagonal().all()


def test_the_default_network_is_the_published_one_but_for_the_last_layers() -> None:
    for head in (256, 1536):
        made = ScoreNetwork(7, MATRICES.reach, ScoreConfig(head=head), 0)
        assert len(made.blocks) == 12
        assert made.head[0].in_features == 12 * 64
        block = 2 * 2 * 64 + (64 * 192 + 192) + (64 * 64 + 64) + (64 * 128 + 128) + (128 * 64 + 64)
        last = (768 * head + head) + (head * head + head) + (head * 7 + 7)
        inner = (7 * 64 + 64) + (64 * 256 + 256) + (256 * 64 + 64)
        assert sum(p.numel() for p in made.parameters()) == 12 * block + last + inner


def test_positions_and_noise_matter() -> None:
    made = network()
    with torch.no_grad():
        alike = made(torch.ones(3, 8, 7), torch.tensor([0.1, 0.1, 2.0]))
    assert torch.equal(alike[0], alike[1])
    assert not torch.allclose(alike[0], alike[2])
    assert not torch.allclose(alike[0, 4], alike[0, 5])  # both reach the output alone


# -- training ---------------------------------------------------------------------------------------------------------


class Killed(Exception):
    """The process ends here."""


class Stored(MutableMapping[str, Mapping[str, Any]]):
    """Keeps what can be stored; the process is killed when it writes more often than `left` times."""

    def __init__(self, left: int = 1_000) -> None:
        self.left = left
        self.steps: list[int] = []
        self._packed: dict[str, tuple[str, bytes]] = {}

    def __getitem__(self, key: str) -> Mapping[str, Any]:
        found: Mapping[str, Any] = snapshots.unpack(*self._packed[key])
        return found

    def __setitem__(self, key: str, value: Mapping[str, Any]) -> None:
        if not self.left:
            raise Killed
        self.left -= 1
        self.steps.append(int(value["step"]))
        self._packed[key] = snapshots.pack(value)

    def __delitem__(self, key: str) -> None:
        del self._packed[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._packed)

    def __len__(self) -> int:
        return len(self._packed)


def weights(found: Score) -> dict[str, Any]:
    return {name: weight.tolist() for name, weight in found.network.state_dict().items()}


@pytest.mark.parametrize("changes", [{}, {"parametrisation": "score", "dropout": 0.1, "noise": "edm", "process": "vp"}])
def test_a_killed_training_goes_on_and_ends_bit_for_bit_the_same(
    monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any]
) -> None:
    monkeypatch.setattr(score, "CHECKPOINT", 2)
    config, matrices = TINY.model_copy(update=changes), cells(50)
    global_state = torch.get_rng_state()
    whole, killed = Stored(), Stored(2)
    never = trained(lambda: matrices, MATRICES.reach, config, whole, "one")
    assert whole.steps == [2, 4, 6, 7]
    with pytest.raises(Killed):
        trained(lambda: matrices, MATRICES.reach, config, killed, "one")
    killed.left = 9
    with thread_count(2):
        resumed = trained(lambda: matrices, MATRICES.reach, config, killed, "one")
    assert killed.steps == [2, 4, 6, 7]
    assert weights(resumed) == weights(never)
    assert torch.equal(torch.get_rng_state(), global_state)

    def none() -> Any:
        raise AssertionError

    again = trained(none, MATRICES.reach, config, whole, "one")
    assert weights(again) == weights(never)
    x, sigma = torch.randn(3, 8, 7, generator=random()), torch.tensor([0.1, 1.0, 5.0])
    assert torch.equal(again(x, sigma), never(x, sigma))
    other = trained(lambda: matrices, MATRICES.reach, config, {}, "two")
    assert weights(other) != weights(never)


def test_weights_are_those_of_the_exponential_mean() -> None:
    matrices = cells(50)
    one = untrained(matrices, MATRICES.reach, TINY, 0)
    training = score.training_of(one, matrices, TINY, 0)
    name = "embedding.weight"
    mean = one.network.embedding.weight.detach().clone()
    for step in range(5):
        training.advance(step + 1)
        decay = min(TINY.mean, (1 + step) / (10 + step))
        mean = decay * mean + (1 - decay) * one.network.embedding.weight.detach()
    assert training.weights()[name] == pytest.approx(mean.numpy(), abs=1e-6)
    assert not numpy.allclose(training.weights()[name], one.network.embedding.weight.detach().numpy(), atol=1e-5)


def test_dropout_is_of_training_alone() -> None:
    made = network(TINY.model_copy(update={"dropout": 0.5}))
    x, noise = torch.ones(2, 8, 7), torch.ones(2)
    assert torch.equal(made(x, noise), made(x, noise))
    assert torch.equal(made(x, noise, random(1)), made(x, noise, random(1)))
    assert not torch.equal(made(x, noise, random(1)), made(x, noise, random(2)))


def validity(config: ScoreConfig) -> float:
    made = trained(lambda: cells(3000), MATRICES.reach, config, {}, "validity")
    with thread_count(1):
        rows = reverse.heun(made, (128, 8, 7), random(), schedule=made.schedule)
    found = MATRICES.decode(rows.numpy())
    assert len(set(found)) > 0.9 * len([arch for arch in found if arch is not None])
    return sum(arch is not None for arch in found) / len(found)


SMALL = ScoreConfig(blocks=2, width=32, heads=4, hidden=32, head=64, steps=200, batch=64, rate=4e-3, warm_up=20)


@pytest.mark.parametrize("changes", [{}, {"noise": "laplace", "process": "cosine"}])
def test_a_small_network_learns_to_give_cells(changes: dict[str, Any]) -> None:
    assert validity(SMALL.model_copy(update=changes)) >= 0.7


@pytest.mark.slow
@pytest.mark.parametrize("changes", [{}, {"noise": "laplace", "process": "cosine"}, {"noise": "edm", "process": "vp"}])
def test_the_default_network_gives_cells(changes: dict[str, Any]) -> None:
    assert validity(ScoreConfig(**changes)) >= 0.95
