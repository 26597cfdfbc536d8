"""Networks in which a layer is tried: hosts, one file each, listed here.

The file of a host has `network(task, dims, slot)`, its untrained network for a task, which calls `slot` wherever a
layer goes (`slot.py`). Hosts of the user's own are references (`own.py`). `network.py` has what spaces of layers need
of all of them.
"""

from __future__ import annotations

from collections.abc import Mapping

from nas_core.task import IMAGE_CLASSIFICATION, NODE_CLASSIFICATION, TABULAR_CLASSIFICATION, TABULAR_REGRESSION
from search_spaces.hosts.host import Dims, Host

IMAGES = frozenset({IMAGE_CLASSIFICATION})
TABLES = frozenset({TABULAR_CLASSIFICATION, TABULAR_REGRESSION})
GRAPHS = frozenset({NODE_CLASSIFICATION})

_LISTED = (
    Host("resnet", IMAGES, search=Dims(12, 1, 3), full=Dims(48, 2, 3)),
    Host("mobilenet", IMAGES, search=Dims(12, 1, 3), full=Dims(48, 2, 3)),
    Host("efficientnet", IMAGES, search=Dims(12, 1, 3), full=Dims(48, 2, 3)),
    Host("vgg", IMAGES, search=Dims(12, 2, 3), full=Dims(64, 2, 3)),
    Host("vit", IMAGES, positions=1, search=Dims(24, 2), full=Dims(120, 6)),
    Host("mlp", TABLES, positions=0, search=Dims(72, 2), full=Dims(264, 4)),
    Host("gcn", GRAPHS, positions=1, search=Dims(16, 1), full=Dims(64, 1)),
)
# Hosts of images have groups of several channels: of 8, 16 or 32 channels every group is one, and what it normalises
# says nothing of a sample once a host has averaged it over the positions.
HOSTS: Mapping[str, Host] = {host.name: host for host in _LISTED}
"""In the order of preference: the first one that learns a task is what a size without a host means."""
