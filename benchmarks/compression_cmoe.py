"""Characters of Shakespeare: a transformer whose feed-forward layers are carved into experts, beside random divisions.

    python benchmarks/compression_cmoe.py --text ../shared/data/tinyshakespeare.txt.gz --out compression_cmoe.csv

Per seed a network is trained, and its gated feed-forward layers are carved at three shares of their compute. Beside
`cmoe` are: `random units`, 3 divisions at random, shared experts too; `random routed`, 3 with CMoE's shared experts;
both with the analytical router of their own representatives; CMoE's experts with `random routing` and with the
`oracle`, which takes those with the largest hidden values of a token; the dense network; and the dense one whose
feed-forward layers answer 0. Each is measured before and after the same short training on the same batches. Losses are
means over the same windows of the last tenth of the text, in nats per character. Latencies are medians of the ratios of
interleaved pairs with the dense network, one thread. Every measurement is a row of the file; a row that is there is not
made again.
"""

from __future__ import annotations

import argparse
import copy
import gzip
import math
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from rows import Rows
from torch import Tensor, nn
from torch.nn import functional

from compressors.cmoe import BalancedLoad, Carving, CMoE, Settings, carve, carved_layer, divided, marked
from compressors.compressor import Subject
from nas_core.batch import Batch
from nas_core.seeds import derive
from nas_core.task import TABULAR_CLASSIFICATION, InputSpec, Task
from search_spaces.counter import macs
from search_spaces.layers.carved import ACTIVATIONS, CarvedFeedForward

FIELDS = ("seed", "share", "way", "draw", "loss", "loss_trained", "ffn_macs", "macs", "latency", "seconds")
CONTEXT, WIDTH, HIDDEN, HEADS, LAYERS, BATCH = 64, 64, 256, 4, 2, 32
SHARES = {0.75: 10, 0.5: 6, 0.25: 2}
"""Active routed experts by the share of experts that are computed, of 16 of which 2 are shared."""

DRAWS = 3

Route = Callable[[Tensor], tuple[Tensor, Tensor]]
"""From tokens to the experts that are chosen, and their weights."""

Router = Callable[[CarvedFeedForward, int], Route]
"""Of a layer and a seed."""


class FeedForward(nn.Module):
    """`down(silu(gate(x)) * up(x))`."""

    def __init__(self) -> None:
        super().__init__()
        self.gate, self.up = nn.Linear(WIDTH, HIDDEN, bias=False), nn.Linear(WIDTH, HIDDEN, bias=False)
        self.down = nn.Linear(HIDDEN, WIDTH, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        answer: Tensor = self.down(functional.silu(self.gate(x)) * self.up(x))
        return answer


class Block(nn.Module):
    """Causal attention and a feed-forward layer, each behind a normalisation."""

    def __init__(self) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.qkv, self.out, self.inner = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH), FeedForward()

    def forward(self, x: Tensor) -> Tensor:
        heads = self.qkv(self.norm1(x)).unflatten(-1, (3, HEADS, WIDTH // HEADS)).permute(2, 0, 3, 1, 4)
        mixed = functional.scaled_dot_product_attention(*heads.unbind(0), is_causal=True)
        x = x + self.out(mixed.transpose(1, 2).flatten(2))
        return x + self.inner(self.norm2(x))


class Characters(nn.Module):
    """Logits of the next character, `[n, context]` to `[n, context, characters]`."""

    def __init__(self, characters: int) -> None:
        super().__init__()
        self.characters, self.places = nn.Embedding(characters, WIDTH), nn.Embedding(CONTEXT, WIDTH)
        self.blocks = nn.Sequential(*(Block() for _ in range(LAYERS)))
        self.norm, self.head = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, characters)

    def forward(self, text: Tensor) -> Tensor:
        x = self.characters(text) + self.places.weight
        answer: Tensor = self.head(self.norm(self.blocks(x)))
        return answer


class Text:
    """Windows of a text at random places, the first nine tenths for training."""

    def __init__(self, path: Path) -> None:
        text = gzip.decompress(path.read_bytes()).decode()
        letters = {letter: number for number, letter in enumerate(sorted(set(text)))}
        codes, self.letters = torch.tensor([letters[letter] for letter in text]), len(letters)
        cut = len(codes) * 9 // 10
        self.parts = {"train": codes[:cut], "valid": codes[cut:]}

    def batches(self, part: str, epoch: int, seed: int) -> Iterator[Batch]:
        """Without an end."""
        codes, drawn = self.parts[part], torch.Generator().manual_seed(derive(seed, epoch, part))
        while True:
            starts = torch.randint(len(codes) - CONTEXT - 1, (BATCH,), generator=drawn)
            windows = codes[starts[:, None] + torch.arange(CONTEXT + 1)]
            yield Batch((windows[:, :-1],), windows[:, 1:])


def trained(network: nn.Module, text: Text, steps: int, seed: int, rate: float, epoch: int = 0, warm: int = 0) -> None:
    """AdamW with a cosine to 0 on the batches of the seed and the epoch; experts are balanced."""
    optimizer = torch.optim.AdamW([one for one in network.parameters() if one.requires_grad], rate)
    balance = BalancedLoad(Settings().bias_speed)
    network.train()
    balance.begin(network, None, None, seed)  # type: ignore[arg-type]
    batches = text.batches("train", epoch, seed)
    for step in range(steps):
        now = rate * min((step + 1) / max(warm, 1), 0.5 + 0.5 * math.cos(math.pi * step / steps))
        for group in optimizer.param_groups:
            group["lr"] = now
        batch = next(batches)
        balance.before_step(step, steps)
        optimizer.zero_grad()
        functional.cross_entropy(network(*batch.inputs).flatten(0, 1), batch.target.flatten()).backward()
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        balance.after_step()
    network.eval()


@torch.no_grad()
def loss(network: nn.Module, text: Text, batches: int) -> float:
    losses = []
    for batch, _ in zip(text.batches("valid", 0, 0), range(batches), strict=False):
        losses.append(functional.cross_entropy(network(*batch.inputs).flatten(0, 1), batch.target.flatten()))
    return float(torch.stack(losses).mean())


class Drawn(CMoE):
    """CMoE with routed experts, or all of them (`whole`), divided at random."""

    def __init__(self, subject: Subject, config: Settings, draw: int, whole: bool) -> None:
        super().__init__(subject, config)
        self.seed, self.config, self.draw, self.whole = subject.seed, config, draw, whole

    def carving(self, scores: Tensor, layer: int) -> Carving:
        config, drawn = self.config, torch.Generator().manual_seed(derive(self.seed, layer, self.draw, "division"))
        units, size = scores.shape[1], scores.shape[1] // config.experts
        common = torch.randperm(units, generator=drawn)[: config.shared * size].sort().values
        if not self.whole:
            common = carve(scores, config).shared
        others = torch.tensor(sorted({*range(units)} - {*common.tolist()}))
        labels = torch.arange(config.experts - config.shared).repeat_interleave(size)
        labels = labels[torch.randperm(len(labels), generator=drawn)]
        return divided(marked(scores, config.k_act), common, others, labels)


def at_random(layer: CarvedFeedForward, seed: int) -> Route:
    drawn = torch.Generator().manual_seed(seed)

    def route(tokens: Tensor) -> tuple[Tensor, Tensor]:
        chosen = torch.rand(len(tokens), layer.routed, generator=drawn).topk(layer.active).indices
        return chosen, torch.ones(len(tokens), layer.active)

    return route


def by_oracle(layer: CarvedFeedForward, seed: int) -> Route:
    def route(tokens: Tensor) -> tuple[Tensor, Tensor]:
        with torch.no_grad():
            assert layer.up is not None
            inner = ACTIVATIONS[layer.activation](layer.gate(tokens)) * layer.up(tokens)
            mass = inner[:, layer.shared * layer.width :].abs().unflatten(1, (layer.routed, layer.width)).sum(2)
        return mass.topk(layer.active).indices, torch.ones(len(tokens), layer.active)

    return route


class Nothing(nn.Module):
    """Answers 0."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.zeros_like(x)


def latency(network: nn.Module, dense: nn.Module, inputs: tuple[Tensor, ...], pairs: int = 15) -> float:
    """The median ratio of the times of interleaved passes."""

    def took(one: nn.Module) -> float:
        begun = time.perf_counter()
        one(*inputs)
        return time.perf_counter() - begun

    with torch.no_grad():
        for one in (network, dense):
            took(one)
        return statistics.median(took(network) / took(dense) for _ in range(pairs))


def ways(dense: nn.Module, subject: Subject, config: Settings) -> list[tuple[str, int, Callable[[], nn.Module]]]:
    """Name, number and maker of each network at one share."""
    return [
        ("cmoe", 0, partial(carved, dense, CMoE(subject, config))),
        *(
            (name, draw, partial(carved, dense, Drawn(subject, config, draw, whole)))
            for draw in range(DRAWS)
            for name, whole in (("random units", True), ("random routed", False))
        ),
        ("random routing", 0, partial(carved, dense, CMoE(subject, config), at_random)),
        ("oracle", 0, partial(carved, dense, CMoE(subject, config), by_oracle)),
    ]


def carved(
    dense: nn.Module, method: CMoE, router: Callable[[CarvedFeedForward, int], Route] | None = None
) -> nn.Module:
    """A network by a method, with its router or another one."""
    network = copy.deepcopy(dense)
    method.compress(network, 0)
    for number, layer in enumerate(one for one in network.modules() if isinstance(one, CarvedFeedForward)):
        if router is not None:
            layer.route = router(layer, derive(number, "routing"))  # type: ignore[method-assign]
    return network


def wide_rows(rows: Rows) -> None:
    """Latencies of one layer of several widths on 2,048 tokens, at half of the compute, beside the dense one."""
    for hidden in (256, 1024, 4096):
        if rows.get("", 0.5, "layer", hidden):
            continue
        with torch.random.fork_rng():
            torch.manual_seed(0)
            features = hidden // 4
            maps = {name: nn.Linear(features, hidden, bias=False) for name in ("gate", "up")}
            maps["down"] = nn.Linear(hidden, features, bias=False)
            tokens = torch.randn(2048, features)
        division = Carving(
            torch.arange(hidden // 8),
            torch.arange(hidden // 8, hidden).reshape(14, -1),
            torch.arange(hidden // 8, hidden, hidden // 16),
            torch.zeros(hidden),
        )
        layer, whole = (carved_layer(maps, division, "silu", active).eval() for active in (6, 14))
        row = {"seed": "", "share": 0.5, "way": "layer", "draw": hidden, "latency": latency(layer, whole, (tokens,))}
        show(rows, {**row, "macs": macs(layer, (tokens[:1],)), "ffn_macs": macs(layer, (tokens[:1],))})


def show(rows: Rows, row: Mapping[str, Any]) -> None:
    empty = dict.fromkeys(FIELDS)
    print(rows.write({**empty, **row}), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--text", type=Path, required=True, help="tinyshakespeare.txt.gz")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=1500, help="of the dense training")
    parser.add_argument("--tune", type=int, default=100, help="steps of the short training")
    parser.add_argument("--windows", type=int, default=20, help="batches of 32 windows that losses are measured on")
    parser.add_argument("--out", type=Path, default=Path("compression_cmoe.csv"))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    text, rows = Text(arguments.text), Rows(arguments.out, FIELDS, named=4)
    wide_rows(rows)
    for seed in range(arguments.seeds):
        of_seed(rows, text, seed, arguments)
    summary(rows)


def of_seed(rows: Rows, text: Text, seed: int, arguments: argparse.Namespace) -> None:
    """All rows of one network, which is trained anew."""
    task = Task(kind=TABULAR_CLASSIFICATION, inputs=(InputSpec(name="x", shape=(CONTEXT,)),), outputs=text.letters)
    torch.manual_seed(seed)
    dense = Characters(text.letters)
    trained(dense, text, arguments.steps, seed, 3e-3, warm=50)
    nothing = copy.deepcopy(dense)
    for block in nothing.blocks:
        block.inner = Nothing()
    inputs = next(text.batches("valid", 1, 0)).inputs
    one, data = (inputs[0][:1],), text
    made: list[tuple[float, str, int, Callable[[], nn.Module]]] = [
        (1.0, "dense", 0, partial(copy.deepcopy, dense)),
        (0.0, "no feed-forward", 0, partial(copy.deepcopy, nothing)),
    ]
    for share, active in SHARES.items():
        subject = Subject(task, data, torch.device("cpu"), seed, one)  # type: ignore[arg-type]
        made += [(share, *way) for way in ways(dense, subject, Settings(active=active))]
    for share, way, draw, make in made:
        if rows.get(seed, share, way, draw):
            continue
        begun, network = time.process_time(), make()
        row = {"seed": seed, "share": share, "way": way, "draw": draw, "macs": macs(network, one)}
        row |= {"ffn_macs": row["macs"] - macs(nothing, one), "loss": loss(network, text, arguments.windows)}
        row["latency"] = latency(network, dense, inputs) if way in ("cmoe", "dense") else None
        trained(network, text, arguments.tune, seed, 3e-4, epoch=1)
        row["loss_trained"] = loss(network, text, arguments.windows)
        show(rows, {**row, "seconds": round(time.process_time() - begun, 1)})


def summary(rows: Rows) -> None:
    """Per share and way the means over seeds and draws; per seed by how much cmoe is below the mean of the draws."""
    table: dict[tuple[str, str], dict[str, list[tuple[float, float]]]] = {}
    for row in rows:
        if row["seed"]:
            losses = (float(row["loss"]), float(row["loss_trained"]))
            table.setdefault((row["share"], row["way"]), {}).setdefault(row["seed"], []).append(losses)
    for (share, way), by_seed in table.items():
        means = {
            seed: [statistics.fmean(column) for column in zip(*found, strict=True)] for seed, found in by_seed.items()
        }
        before, after = (statistics.fmean(column) for column in zip(*means.values(), strict=True))
        line = f"{share:>5} {way:16} {before:.4f} {after:.4f}"
        if way.startswith("random"):
            ours = table[share, "cmoe"]
            for column in (0, 1):
                gains = [means[seed][column] - ours[seed][0][column] for seed in means if seed in ours]
                line += "   cmoe is below by " + " ".join(f"{gain:+.4f}" for gain in gains)
        print(line)


if __name__ == "__main__":
    main()
