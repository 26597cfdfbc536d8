"""Networks in which a layer is tried: hosts, one file each, listed here.

The file of a host has `network(task, dims, slot)`, its untrained network for a task, which calls `slot` wherever a
layer goes (`slot.py`); `network.py` has what spaces of layers need of all of them.
"""

from __future__ import annotations

from collections.abc import Mapping

from nas_core.task import IMAGE_CLASSIFICATION, NODE_CLASSIFICATION, TABULAR_CLASSIFICATION, TABULAR_REGRESSION
from search_spaces.hosts.host import Dims, Host

IMAGES = frozenset({IMAGE_CLASSIFICATION})
TABLES = frozenset({TABULAR_CLASSIFICATION, TABULAR_REGRESSION})
GRAPHS = frozenset({NODE_CLASSIFICATION})

HOSTS: Mapping[str, Host] = {
    "resnet": Host("search_spaces.hosts.resnet", IMAGES, search=Dims(8, 1, 3), full=Dims(32, 2, 3)),
    "mobilenet": Host("search_spaces.hosts.mobilenet", IMAGES, search=Dims(8, 1, 3), full=Dims(32, 2, 3)),
    "efficientnet": Host("search_spaces.hosts.efficientnet", IMAGES, search=Dims(8, 1, 3), full=Dims(32, 2, 3)),
    "vgg": Host("search_spaces.hosts.vgg", IMAGES, search=Dims(8, 2, 3), full=Dims(64, 2, 3)),
    "vit": Host("search_spaces.hosts.vit", IMAGES, positions=1, search=Dims(24, 2), full=Dims(120, 6)),
    "mlp": Host("search_spaces.hosts.mlp", TABLES, positions=0, search=Dims(72, 2), full=Dims(264, 4)),
    "gcn": Host("search_spaces.hosts.gcn", GRAPHS, positions=1, search=Dims(16, 1), full=Dims(64, 1)),
}
"""In the order of preference: the first one that learns a task is what a size without a host means."""
