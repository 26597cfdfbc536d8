"""What is done with the network of a trial: a training, a compression. One file per kind, and one line here."""

from collections.abc import Mapping

from nas_core.records import COMPRESS, RETRAIN

JOBS: Mapping[str, str] = {
    RETRAIN: "studies.jobs.train:opened",
    COMPRESS: "studies.jobs.compress:opened",
}
"""By the kind of the runs that a job makes: what opens it from stored settings, `opened(store, spec, settings)`, where
`store()` is the store of the study, for who needs it."""
