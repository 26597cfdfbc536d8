"""The contract of a search space: `check` yields what is wrong with one; no finding means that it holds.

Run by `nas spaces check`. The parts follow one another: what the later ones need, the earlier ones check.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from itertools import chain, islice, pairwise
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from nas_core import moves, tokens
from nas_core.architecture import Architecture
from nas_core.choice import Choice, Value
from nas_core.config import SizeConfig
from nas_core.errors import UsageError
from nas_core.graph import ArchGraph
from nas_core.seeds import generator
from nas_core.space import HasCosts, HasFindings, HasNotation, HasUnsound, SearchSpace
from nas_core.task import Task
from nas_core.testing.findings import Reference, ask_fresh, collect
from nas_core.traits import deployed_parameters

if TYPE_CHECKING:
    from torch import Tensor, nn

ENUMERABLE = 20_000  # spaces up to this size are enumerated in full
BUILT = 3  # architectures built per task
SOUGHT = 4_000  # architectures among which sound ones are looked for
HEAVY = ("torch", "torch_geometric", "optuna", "matplotlib", "sklearn", "pandas", "PIL")


def check(
    space: SearchSpace, tasks: Mapping[Task, Sequence[Tensor]], samples: int = 40, built: int = BUILT
) -> Iterator[str]:
    """What is wrong with `space`, in a sentence each; `samples` random architectures are looked at.

    Networks of sound architectures, `built` per task, are built for those of `tasks` whose kind the space declares, and
    run on their inputs.
    """
    for part, function in (("declaration", _declaration), ("allowed", _allowed)):
        found = list(collect(part, function, space))
        yield from found
        if found:
            return  # without these nothing else can be asked
    archs = list(_drawn(space, 0, samples))
    yield from collect("legality", _legality, space, archs)
    yield from collect("illegal", _illegal, space, archs[:10])
    yield from collect("round trip", _round_trips, space, archs)
    yield from collect("moves", _moves, space, archs)
    yield from collect("identity", _views, space, archs)
    yield from collect("recipe", _recipes, space, archs)
    yield from collect("graph", _graphs, space, archs)
    yield from collect("enumeration", _enumeration, space, archs)
    if isinstance(space, HasNotation):
        yield from collect("notation", _notation, space, archs)
    if isinstance(space, HasFindings):
        yield from collect("parts", space.findings)
    sound = archs
    if isinstance(space, HasUnsound):
        yield from collect("unsound", _unsound, space, archs)
        drawn = chain(archs, _drawn(space, samples, SOUGHT))
        sound = list(islice((arch for arch in drawn if space.unsound(arch) is None), samples))
        if not sound:
            yield f"unsound: of {SOUGHT:,} random architectures none is sound, so nothing was built"
            return
    mine = [task for task in tasks if task.kind in space.tasks]
    if not mine:
        yield f"build: none of the {len(tasks)} tasks is of a kind in {sorted(space.tasks)}, so nothing was built"
    for place, task in enumerate(mine):
        where = f"build for {task.kind} {task.input_shape}"
        start = min(place, len(sound) - 1)
        if task.edge_features and _refuses(space, sound[start], task):
            continue
        for arch in dict.fromkeys(sound[start : start + built]):
            yield from collect(where, _build, space, arch, task, tasks[task])


def _refuses(space: SearchSpace, arch: Architecture, task: Task) -> bool:
    """Whether the space says that it has no use for features of edges, which not every space has."""
    try:
        space.build(arch, task, space.Size.preset("search"))
    except UsageError:
        return True
    return False


def _drawn(space: SearchSpace, start: int, stop: int) -> Iterator[Architecture]:
    return (moves.sample(space, generator("contract", number)) for number in range(start, stop))


def check_fresh(*references: Reference) -> Iterator[str]:
    """What only a new interpreter shows: loading and listing imports nothing heavy, and keys, identities
    and graphs do not depend on the hash seed. One interpreter is asked about all spaces."""
    code = (
        "from nas_core.testing.space import HEAVY, fingerprint\n"
        "answers = []\n"
        "for reference in ARGUMENTS:\n"
        "    before = set(sys.modules)\n"
        "    space = reference.load()\n"
        "    space.choices, space.tasks\n"
        "    heavy = [name for name in HEAVY if name in sys.modules and name not in before]\n"
        "    answers.append([heavy, fingerprint(space)])\n"
        "print(json.dumps(answers))\n"
    )
    for reference, (heavy, fresh) in zip(references, ask_fresh(code, *references), strict=True):
        where = f"{reference.text}: " if len(references) > 1 else ""
        if heavy and ":" not in reference.text:  # a file of one's own is listed nowhere
            names = ", ".join(heavy)
            yield f"{where}listing the space imports {names}; import them inside build or in a module of layers"
        for mine, other in zip(fingerprint(reference.load()), fresh, strict=True):
            if mine != other:
                yield f"{where}another interpreter with another hash seed gives {other} instead of {mine}"
                break


def fingerprint(space: SearchSpace, samples: int = 20) -> list[list[str]]:
    """Key, identity and graph hash of some architectures; the same in every interpreter."""
    archs = [moves.sample(space, generator("fingerprint", number)) for number in range(samples)]
    return [[arch.key, space.identity(arch), space.graph(arch).wl_hash(3)] for arch in archs]


def _declaration(space: SearchSpace) -> Iterator[str]:
    if not isinstance(space.name, str) or not space.name:
        yield f"the name is {space.name!r}, not a text"
    if not isinstance(space.version, int):
        yield f"the version is {space.version!r}, not an integer"
    if not space.tasks or not all(isinstance(kind, str) for kind in space.tasks):
        yield f"tasks is {space.tasks!r}, not a set of task kinds"
    if not isinstance(space.choices, tuple) or not all(isinstance(choice, Choice) for choice in space.choices):
        yield "choices is not a tuple of Choice"
        return
    if not space.choices:
        yield "there are no choices"
    if space.choices != space.choices:
        yield "choices differ from one access to the next"
    earlier: dict[str, Choice] = {}
    for choice in space.choices:
        if choice.name in earlier:
            yield f"two choices are called '{choice.name}'"
        for condition in choice.when:
            if condition.name not in earlier:
                yield f"the condition of '{choice.name}' names '{condition.name}', which is no earlier choice"
            elif not set(condition.values) <= set(earlier[condition.name].options):
                yield f"the condition of '{choice.name}' asks for values that '{condition.name}' does not have"
        earlier[choice.name] = choice
    for preset in ("search", "full"):
        size = space.Size.preset(preset)
        if not isinstance(size, SizeConfig):
            yield f"size preset '{preset}' is no SizeConfig"


def _allowed(space: SearchSpace) -> Iterator[str]:
    """Random walks, and the two that always take the first or the last option."""
    for number in range(60):
        rng = generator("walk", number)
        prefix: dict[str, Value] = {}
        for choice in space.choices:
            if not choice.active(prefix):
                continue
            options = space.allowed(choice, MappingProxyType(prefix))
            after = f"for '{choice.name}' after {prefix}"
            if not isinstance(options, tuple) or space.allowed(choice, MappingProxyType(prefix)) != options:
                yield f"not a tuple, or another one when asked again, {after}"
                return
            if not options:
                yield f"empty {after}"
                return
            if len(set(options)) != len(options) or any(_is_none_of(option, choice) for option in options):
                yield f"{options} repeats options or has others than the choice's own {choice.options} {after}"
                return
            position = (0, len(options) - 1)[number] if number < 2 else int(rng.integers(len(options)))
            prefix[choice.name] = options[position]


def _is_none_of(value: Value, choice: Choice) -> bool:
    return not any(type(option) is type(value) and option == value for option in choice.options)


def _legality(space: SearchSpace, archs: Sequence[Architecture]) -> Iterator[str]:
    for arch in archs:
        reason = space.illegal(arch)
        if reason is not None:
            yield f"a sampled architecture is called illegal ({reason}): {dict(arch.values)}"


def _unsound(space: HasUnsound, archs: Sequence[Architecture]) -> Iterator[str]:
    for arch in archs:
        reason = space.unsound(arch)
        if reason is not None and not (isinstance(reason, str) and reason.strip()):
            yield f"{reason!r} instead of a reason or None: {dict(arch.values)}"
        if space.unsound(arch) != reason:
            yield f"{reason!r}, and another answer when asked again: {dict(arch.values)}"


def _illegal(space: SearchSpace, archs: Sequence[Architecture]) -> Iterator[str]:
    for arch in archs:
        for what, bad in _spoiled(space, arch):
            reason = space.illegal(bad)
            if not isinstance(reason, str) or not reason:
                yield f"{what} goes unnoticed: {bad}"


def _spoiled(space: SearchSpace, arch: Architecture) -> Iterator[tuple[str, Architecture]]:
    """Architectures that are not of the space, each with what was done to a legal one."""
    values = dict(arch.values)
    yield "another space's name", Architecture(space.name + "-other", values)
    yield "a choice that the space does not have", Architecture(space.name, {**values, "no such choice": 1})
    if len(values) > 1:
        yield "another order", Architecture(space.name, dict(reversed(values.items())))
    prefix: dict[str, Value] = {}
    for choice in space.choices:
        name = choice.name
        if name not in values:
            in_order = [c.name for c in space.choices if c.name in values or c is choice]
            given = {**values, name: choice.options[0]}
            yield f"inactive choice '{name}'", Architecture(space.name, {n: given[n] for n in in_order})
            continue
        yield f"missing choice '{name}'", Architecture(space.name, {n: v for n, v in values.items() if n != name})
        for wrong in _foreign(choice, values[name]):
            yield f"value {wrong!r} of '{name}'", Architecture(space.name, {**values, name: wrong})
        allowed = space.allowed(choice, prefix)
        for option in choice.options:
            if option not in allowed:
                yield f"value {option!r} of '{name}', not allowed", Architecture(space.name, {**values, name: option})
        prefix[name] = values[name]


def _foreign(choice: Choice, value: Value) -> tuple[Value, ...]:
    """Values that are no option: unknown ones, and ones that merely compare equal."""
    if isinstance(value, str):
        longest = max((option for option in choice.options if isinstance(option, str)), key=len)
        return (longest + "?", 0)
    if isinstance(value, bool):
        return (int(value), str(value))
    largest = max(option for option in choice.options if not isinstance(option, str))
    return (largest + 1, str(value), float(value) if isinstance(value, int) else "nan")


def _round_trips(space: SearchSpace, archs: Sequence[Architecture]) -> Iterator[str]:
    for arch in archs:
        back = Architecture.from_json(arch.to_json())
        if back != arch or repr(back) != repr(arch):
            yield f"JSON turns {arch} into {back}"
        encoded = tokens.encode(space, arch)
        if tokens.decode(space, encoded) != arch:
            yield f"tokens {encoded.tolist()} do not decode to {arch}"
        for position, token in enumerate(encoded):
            if not tokens.mask(space, position, encoded.tolist())[token]:
                yield f"the mask of '{space.choices[position].name}' forbids the token of {arch}"


def _moves(space: SearchSpace, archs: Sequence[Architecture]) -> Iterator[str]:
    for number, (arch, other) in enumerate(pairwise([*archs, archs[0]])):
        rng = generator("moves", number)
        # The generic moves, and the space's own where it has them.
        for mutate, crossover in (
            (partial(moves.mutate, space), partial(moves.crossover, space)),
            (moves.variation(space).mutate, moves.variation(space).crossover),
        ):
            for child in crossover(arch, other, rng):
                if space.illegal(child):
                    yield f"crossover gives an illegal child ({space.illegal(child)}) of {arch} and {other}"
            if moves.free_choices(space, arch):
                mutant = mutate(arch, rng)
                if mutant == arch or space.illegal(mutant):
                    yield f"mutate gives the same or an illegal architecture from {arch}: {mutant}"
    for arch in archs[:5]:
        around = moves.neighbours(space, arch)
        if arch in around or len(set(around)) != len(around):
            yield f"the neighbours of {arch} hold itself or repeat"
        for neighbour in around:
            if space.illegal(neighbour):
                yield f"a neighbour of {arch} is illegal ({space.illegal(neighbour)}): {neighbour}"


def _views(space: SearchSpace, archs: Sequence[Architecture]) -> Iterator[str]:
    """Identity and assignment: deterministic, and equal for equal architectures."""
    for arch in archs:
        one, other = space.identity(arch), space.identity(Architecture.from_json(arch.to_json()))
        if not isinstance(one, str) or not one or one != other:
            yield f"{one!r}, then {other!r}, for {arch}"
        assigned = space.assignment(arch)
        if not isinstance(assigned, Mapping) or dict(assigned) != dict(space.assignment(arch)):
            yield f"assignment is no mapping, or another one when asked again, for {arch}"


def _recipes(space: SearchSpace, archs: Sequence[Architecture]) -> Iterator[str]:
    """What an architecture decides of its training: plain values by name, the same whenever it is asked."""
    for arch in archs:
        fields = space.recipe(arch)
        named = isinstance(fields, Mapping) and all(isinstance(name, str) for name in fields)
        if not named or not all(isinstance(value, bool | int | float | str) for value in fields.values()):
            yield f"{fields!r} are no plain values by name, for {arch}"
        elif dict(fields) != dict(space.recipe(Architecture.from_json(arch.to_json()))):
            yield f"{dict(fields)!r}, and another when asked again, for {arch}"


def _graphs(space: SearchSpace, archs: Sequence[Architecture]) -> Iterator[str]:
    seen: set[Any] = set()
    for arch in archs:
        graph = space.graph(arch)
        if not isinstance(graph, ArchGraph) or not graph.nodes:
            yield f"no ArchGraph with nodes for {arch}"
            return
        if graph != space.graph(Architecture.from_json(arch.to_json())):
            yield f"differs when asked again for {arch}"
        if len(set(graph.edges)) != len(graph.edges):
            yield f"repeats an edge for {arch}: {graph.edges}"
        seen.add((len(graph.nodes), frozenset(graph.edges)) if graph.fixed_topology else None)
    if len(seen) > 1:
        yield "is declared to have a fixed topology, but architectures have different nodes or edges"


def _enumeration(space: SearchSpace, archs: Sequence[Architecture]) -> Iterator[str]:
    count = moves.size(space, ENUMERABLE)
    if count is None or count > ENUMERABLE:
        return
    everything = list(moves.enumerate_all(space))
    if len(everything) != count or len(set(everything)) != count:
        yield f"size is {count}, but {len(set(everything))} distinct of {len(everything)} are enumerated"
    missing = set(archs).difference(everything)
    if missing:
        yield f"a sampled architecture is not enumerated: {next(iter(missing))}"
    for arch in everything[:: max(1, count // 500)]:
        if space.illegal(arch):
            yield f"an illegal architecture is enumerated ({space.illegal(arch)}): {arch}"


def _notation(space: Any, archs: Sequence[Architecture]) -> Iterator[str]:
    for arch in archs:
        text = space.to_text(arch)
        back = space.from_text(text)
        # A text may leave out what the network does not have, so that one text stands for several architectures.
        if back != arch and (space.to_text(back) != text or space.identity(back) != space.identity(arch)):
            yield f"'{text}' of {arch} is read as {back}"
    for bad in ("", "no such architecture", space.to_text(archs[0]) + "?"):
        try:
            yield f"'{bad}' is accepted as {space.from_text(bad)}"
        except ValueError:
            continue


def _build(space: SearchSpace, arch: Architecture, task: Task, inputs: Sequence[Tensor]) -> Iterator[str]:
    import torch

    with torch.random.fork_rng(devices=[]):
        size = space.Size.preset("search")
        model, twin = _seeded(space, arch, task, size), _seeded(space, arch, task, size)
        weights, others = model.state_dict(), twin.state_dict()
        if weights.keys() != others.keys() or any(not torch.equal(weights[name], others[name]) for name in weights):
            yield f"two networks built from the same seed differ for {arch}"
        output = model.train()(*inputs)
        wanted = (task.rows(inputs), *task.answer)
        if tuple(output.shape) != wanted:
            yield f"the output has shape {tuple(output.shape)} instead of {wanted} for {arch}"
            return
        output.square().mean().backward()
        gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
        if not any(gradient.abs().sum() > 0 for gradient in gradients):
            yield f"no parameter gets a gradient for {arch}"
        if not all(torch.isfinite(gradient).all() for gradient in gradients) or not torch.isfinite(output).all():
            yield f"an output or gradient is not finite for {arch}"
        with torch.no_grad():
            model.eval()
            if not torch.equal(model(*inputs), model(*inputs)):
                yield f"two passes in eval mode differ for {arch}"
        full = space.Size.preset("full")
        large = _seeded(space, arch, task, full)
        if isinstance(space, HasCosts):
            yield from _costs(space, arch, task, size, model)
            yield from _costs(space, arch, task, full, large)


def _seeded(space: SearchSpace, arch: Architecture, task: Task, size: SizeConfig) -> nn.Module:
    import torch

    torch.manual_seed(0)
    return space.build(arch, task, size)


def _costs(space: HasCosts, arch: Architecture, task: Task, size: SizeConfig, model: nn.Module) -> Iterator[str]:
    costs = space.costs(arch, task, size)
    if not {"params", "macs"} <= costs.keys() or not all(math.isfinite(cost) and cost >= 0 for cost in costs.values()):
        yield f"costs lack params or macs, or are not finite: {dict(costs)}"
        return
    built = sum(parameter.numel() for _, parameter in deployed_parameters(model))
    if costs["params"] != built:
        yield f"costs say {costs['params']:.0f} parameters, the built network has {built}, for {arch} at {size!r}"
