"""What is done with networks: training, compression, training of a supernet. One file per kind, one line here."""

from collections.abc import Mapping

from nas_core.records import COMPRESS, RETRAIN, SUPERNET

JOBS: Mapping[str, str] = {
    RETRAIN: "studies.jobs.train:opened",
    COMPRESS: "studies.jobs.compress:opened",
    SUPERNET: "studies.jobs.supernet:opened",
}
"""By the kind of the runs that a job makes: what opens it from stored settings, `opened(store, spec, settings)`, where
`store()` is the store of the study, for who needs it."""
