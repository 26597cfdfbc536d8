"""What a kind of task says. Everything here has a default but the name, an example, recipes, losses and metrics."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from nas_core.batch import plain
from training.inputs.base import Inputs, Tensors
from training.metrics import PartMetric

if TYPE_CHECKING:
    from torch import Generator, Tensor, nn

    from nas_core.task import Task
    from training.data.protocol import Source
    from training.data.split import Split
    from training.inputs.samples import Proof, Samples


class Kind:
    """A kind of task: one subclass per file of this folder, whose one object is listed in `training/tasks/__init__.py`.

    What is imported at the top of its file must be light: torch, scikit-learn and the like belong inside of methods.
    """

    name: ClassVar[str]
    example: ClassVar[Task]
    """What costs of an architecture are shown for where there are no data."""
    recipes: ClassVar[Mapping[str, Mapping[str, Any]]]
    """Fields of `training.recipe.Recipe` by name: "quick" and "standard" are what commands ask for."""
    losses: ClassVar[Mapping[str, tuple[str, ...]]]
    """Functions of `torch.nn.functional`, the usual one first, each with the fields of the recipe that it knows."""
    metrics: ClassVar[tuple[PartMetric, ...]]
    """What is reported of every part, as `val_NAME`, beside the loss; the first is the default objective."""
    further: ClassVar[Mapping[str, str]] = {}
    """Metrics that `--metric` knows by name: `module:function`."""

    samples: ClassVar[str] = "samples"
    """The word for what a network answers, one row each."""
    answers: ClassVar[str] = "classes"
    """The word for what a row of its answer has, one column each."""
    inputs_word: ClassVar[str] = "features"
    """The word for its first input."""
    pipeline: ClassVar[str | None] = None
    """What model hubs file its networks under (`pipeline_tag` of Hugging Face's); None: nothing fits."""

    axes: ClassVar[tuple[Mapping[int, str], ...]] = ({0: "batch"},)
    """For each input of the example the dimensions that an exported program leaves free, and what they count."""
    apart: ClassVar[bool] = True
    """Whether samples are computed apart from one another: a batch can be cut (`Batch.part`), its size is a setting. Of
    a graph it is not, which is one batch as a whole."""
    sampled: ClassVar[bool] = False
    """Whether of a graph some nodes can be a batch, with neighbours that are drawn (`Recipe.fan_out`)."""
    images: ClassVar[bool] = False
    """Whether the input are images [b, c, h, w]: channels_last, bf16 where it is faster, augmentation, mixup, and the
    proxies that look at maps."""
    alphas: ClassVar[str] = "half of the training part"
    """What a bilevel search learns the architecture on: the part "alphas" in words."""

    Inputs: ClassVar[type[Inputs]] = Inputs
    """What a deployed network must know of its inputs."""

    def examples(self) -> tuple[Task, ...]:
        """Small tasks whose shapes and outputs differ, which a space is checked on; by default the example."""
        return (self.example,)

    def metrics_of(self, task: Task) -> tuple[PartMetric, ...]:
        """The metrics of this very task, `metrics[0].name` first; by default those of all of the kind."""
        return self.metrics

    # -- training -------------------------------------------------------------------------------------------------

    def fitted(self, name: str, values: Mapping[str, Any], task: Task) -> dict[str, Any]:
        """The values of the named recipe for this very task; by default as they are."""
        return dict(values)

    def loss(self, outputs: Tensor, targets: Tensor, reduction: str = "mean") -> Tensor:
        """The usual loss of outputs [n, k], in float32 under autocast too; "sum" is over samples alone, of each the
        mean over numbers [k] where these are the targets."""
        from torch.nn import functional

        function: Callable[..., Tensor] = getattr(functional, next(iter(self.losses)))
        found = function(outputs.float(), targets, reduction=reduction)
        if reduction == "sum" and targets.is_floating_point() and targets.dim() == 2:
            return found / targets.shape[1]
        return found

    def divergence(self, outputs: Tensor, taught: Tensor, temperature: float) -> Tensor:
        """How far outputs [n, k] are from those of a teacher, a mean over the samples: half the squared error, summed
        over k. Where outputs are classes, both are softened by a temperature."""
        return (outputs.float() - taught.float()).square().sum(1).mean() / 2

    def agreement(self, outputs: Tensor, others: Tensor) -> float:
        """How alike two networks answer, both [n, k], at most 1: by default the share of the variance of `outputs` that
        `others` explain. Where outputs are classes, the share of samples with the same one."""
        spread = float((outputs.double() - outputs.double().mean(0)).square().sum())
        apart = float((outputs.double() - others.double()).square().sum())
        return 1 - apart / spread if spread else float(apart == 0)

    def reward(self, sums: Mapping[str, Tensor]) -> Tensor:
        """How good answers are together, more is better, of their sums (`nas_core.batch.Data.metrics`): by default by
        their loss."""
        return -sums["loss"]

    def light(self, task: Task) -> bool:
        """Whether a network is so quick on one sample that further threads cost more than they save."""
        return False

    def check(self, network: nn.Module, task: Task) -> None:
        """Raises TrialError for a network, before its training, whose figures would mean nothing; by default none."""

    # -- inputs ---------------------------------------------------------------------------------------------------

    def axes_of(self, task: Task) -> tuple[Mapping[int, str], ...]:
        """`axes` of this very task; by default the inputs that it has less than the example are the last."""
        return self.axes[: len(task.inputs)]

    def first(self, inputs: Sequence[Any], count: int) -> tuple[Any, ...]:
        """The inputs of the first `count` samples of a batch, tensors or arrays; of a graph, which is not cut, all,
        without what travels with it (`nas_core.batch.plain`)."""
        return tuple(value[:count] for value in inputs) if self.apart else plain(inputs)

    def sample_inputs(self, task: Task, batch: int, generator: Generator) -> tuple[Tensor, ...]:
        """Random inputs of a network: `batch` samples, normally distributed, or integers of the vocabulary, none of
        which is padding: costs are those of the longest sequences."""
        import torch

        found = []
        for each in task.inputs:
            shape = (batch, *each.shape)
            if each.dtype == "float32":
                found.append(torch.randn(shape, generator=generator))
            else:
                count = each.vocabulary or 2
                drawn = torch.randint(count, shape, generator=generator)
                if each.padding is not None:
                    drawn[drawn == each.padding] = (each.padding + 1) % count
                found.append(drawn)
        return tuple(found)

    def variants(self, example: tuple[Tensor, ...]) -> dict[str, tuple[Tensor, ...]]:
        """Inputs of several sizes made of an example, by name: what an exported program is verified on."""
        sizes = sorted({1, 3, len(example[0])})
        return {f"a batch of {size}": tuple(_resized(tensor, size) for tensor in example) for size in sizes}

    def embedded(self, split: Split) -> Source | None:
        """Small data that need no file, split; by default there are none."""
        return None

    # -- words ----------------------------------------------------------------------------------------------------

    def describe(self, task: Task) -> str:
        """One sample of the task in words: `an image of 3 x 32 x 32`."""
        return f"inputs of {' x '.join(map(str, task.input_shape))}"

    # -- the deployed network -------------------------------------------------------------------------------------

    def read(self, inputs: Any, argument: str) -> Samples:
        """The samples of an argument of `nas infer`. Raises NotFoundError for a missing file, UsageError for one that
        the network cannot take, by default for any."""
        from nas_core.errors import UsageError

        raise UsageError(f"'{argument}' cannot be read: 'nas infer' knows no files for {self.name}")

    def continued(
        self, inputs: Any, run: Callable[[Tensors], Any], argument: str, count: int, seed: int, temperature: float
    ) -> str:
        """So many characters, drawn one by one, that follow the text of an argument of `nas infer`; `run` gives logits.
        By default raises UsageError, since there is nothing to go on with."""
        from nas_core.errors import UsageError

        raise UsageError(f"--continue is for language models; this network is for {self.name}")

    def proofs(self, source: Source) -> list[Proof]:
        """Files of the data that an exported network must answer as the network in training does; by default none."""
        return []

    def normalised(self, network: nn.Module, inputs: Any) -> nn.Module:
        """The network for inputs as `read` gives them; by default they are what the network sees."""
        return network

    def script(self, inputs: Any, file: str, raw: bool) -> str | None:
        """A program that runs the ONNX file without this one, from `training.export.script`; None: there is none."""
        return None

    def card(self, inputs: Any, where: str) -> list[tuple[str, str]]:
        """Rows for the model card: what the inputs are. `where` says where they are normalised."""
        return []

    def given(self, inputs: Any) -> tuple[str, str]:
        """An example argument of `nas infer`, and the packages that `script` needs, in words."""
        return "FILE", "numpy and onnxruntime"

    def python(self, inputs: Any) -> Mapping[str, str]:
        """Functions for the Python file, source by name, the one that makes the network's first input first."""
        return {"normalise": _NORMALISE}

    def answer(self, inputs: Any) -> str:
        """What the Python file takes of the network's answer before it becomes probabilities, as source after it; by
        default all of it."""
        return ""

    def facts(self, inputs: Any) -> dict[str, Any]:
        """Constants for the Python file, beside the names of the classes."""
        return {}


_NORMALISE = '''def normalise(inputs: Tensor) -> Tensor:
    """Inputs as the network reads them: as they are."""
    return inputs'''


def _resized(tensor: Tensor, size: int) -> Tensor:
    import torch

    rows = torch.arange(size)
    found = tensor[rows % len(tensor)]
    if not tensor.is_floating_point():
        return found
    # A repeated sample is dimmed, so that no two rows are the same.
    dim = 0.5 ** (rows // len(tensor)).to(tensor.dtype)
    return found * dim.reshape(-1, *[1] * (tensor.dim() - 1))
