"""The proof of a network that has lost units, in a process of its own that knows nothing but what is written."""

from __future__ import annotations

import multiprocessing
from collections.abc import Mapping
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING, Any

from compressors.groups.groups import Removal
from nas_core.architecture import Architecture
from nas_core.errors import NasError, VerificationError
from nas_core.model import Changes
from nas_core.task import Task
from studies.executors.processes import uninterrupted
from studies.executors.worker import STOPPING, deaf

if TYPE_CHECKING:
    import numpy
    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Claim:
    """A network that is `before` without the units `removed`, as plain data.

    `space`: its reference, `size` the fields of its size. `before` and `after` are files of weights, with what the
    networks differ from their space's in. `inputs` and `answer`: what the network that was written answered there.
    `costs`: what was counted of it. `recalibrated`: statistics of batch normalisations are its own. `threads`: of the
    CPU.
    """

    space: str
    arch: Architecture
    task: Task
    size: Mapping[str, Any]
    before: tuple[Path, Changes]
    after: tuple[Path, Changes]
    removed: Removal
    ignored: tuple[str, ...]
    recalibrated: bool
    inputs: tuple[NDArray[Any], ...]
    answer: NDArray[numpy.float32]
    costs: Mapping[str, float]
    threads: int | None


def prove(claim: Claim) -> dict[str, float]:
    """What was compared, and how far it is apart, in a process of its own.

    Raises VerificationError where anything differs by more than it may, or where that process ends otherwise.
    """
    spawn = multiprocessing.get_context("spawn")
    here, there = spawn.Pipe(duplex=False)
    process = spawn.Process(target=_main, args=(there, claim), daemon=True)
    with uninterrupted(STOPPING):
        process.start()
    there.close()
    try:
        found, problem = here.recv()
    except EOFError:
        process.join()
        raise VerificationError(f"the proof of the smaller network died with exit code {process.exitcode}") from None
    finally:
        process.kill()  # it has answered, or nobody waits for its answer any more
    process.join()
    if problem is not None:
        raise VerificationError(problem)
    differences: dict[str, float] = found
    return differences


def _main(pipe: Connection, claim: Claim) -> None:
    deaf()
    try:
        pipe.send((compared(claim), None))
    except NasError as error:
        pipe.send((None, str(error)))
    except Exception as error:  # whatever a network's own code raises where it is rebuilt
        pipe.send((None, f"the smaller network cannot be proved: {type(error).__name__}: {error}"))


def compared(claim: Claim) -> dict[str, float]:
    """The same in this process."""
    import torch

    from compressors.comparison import difference
    from compressors.compressor import Check
    from compressors.proof import prove as proof
    from search_spaces.counter import macs, params
    from studies.setup.spaces import load_space
    from training.networks import load_trained
    from training.tasks import kind_of, sample_inputs
    from training.threads import thread_count

    space, _ = load_space(claim.space)
    size = space.Size.parse(claim.size)
    with thread_count(claim.threads):
        before, after = (load_trained(space, claim.arch, claim.task, size, *one) for one in (claim.before, claim.after))
        inputs = tuple(map(torch.from_numpy, claim.inputs))
        with torch.no_grad():
            answer = after(*inputs)
        checks = [Check("answer of another process", difference(torch.from_numpy(claim.answer), answer), 0.0)]
        found = {"params": params(after), "macs": macs(after, sample_inputs(claim.task))}
        checks += [
            Check(f"{name} counted again", abs(found[name] - claim.costs[name]), 0.0)
            for name in found
            if name in claim.costs
        ]
        if claim.removed:
            checks += proof(
                before,
                after,
                claim.removed,
                list(kind_of(claim.task).variants(inputs).values()),
                ignored=claim.ignored,
                recalibrated=claim.recalibrated,
            )
    wrong = next((one for one in checks if not one.difference <= one.tolerance), None)
    if wrong is not None:
        raise VerificationError(
            f"the smaller network is not what it should be: {wrong.name} differ by {wrong.difference:.3g}, and may by "
            f"{wrong.tolerance:g}; nothing was kept"
        )
    return {one.name: one.difference for one in checks}
