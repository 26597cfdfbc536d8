"""What zero-cost proxies read of the pass that they share."""

from __future__ import annotations

from enum import Flag, auto


class Need(Flag):
    """What a proxy reads of the labelled pass that all proxies of a network share: parts of a
    `predictors.forward_pass.LabelledPass`."""

    NOTHING = 0
    GRADIENTS = auto()  # of the mean loss, by weight
    CURVATURE = auto()  # Hessian times gradient, by weight; also gives GRADIENTS
    CHANNELS = auto()  # Fisher information of the channels of each weighted layer
    CODES = auto()  # how many activation units agree, by pair of samples
    JACOBIAN = auto()  # of the summed outputs with respect to the inputs
