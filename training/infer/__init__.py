"""Running an exported network on files: what `nas infer` does, and what every export is verified by."""

from __future__ import annotations

from training.infer.classify import Answer, classify, continued
from training.infer.model import Model, open_model
from training.infer.samples import read
from training.inputs.samples import Samples

__all__ = ["Answer", "Model", "Samples", "classify", "continued", "open_model", "read"]
