from nas_core.records import *  # noqa: F403
from nas_core.records import RETRAIN, TRIAL  # noqa: F401
