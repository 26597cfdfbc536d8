"""Compressors: smaller networks out of trained ones. One file per method, listed here (`compressors.compressor`)."""

from collections.abc import Mapping

GROUP = "nas.compressors"

BUILTIN: Mapping[str, str] = {
    "bn-scale": "compressors.structured:BnScale",
    "magnitude": "compressors.structured:Magnitude",
    "oba": "compressors.structured:Oba",
    "obd": "compressors.structured:Obd",
    "random": "compressors.structured:Random",
    "taylor": "compressors.structured:Taylor",
    "hesso": "compressors.hesso:Hesso",
    "hesso-cric": "compressors.hesso_cric:HessoCric",
    "polarization": "compressors.polarization:Polarization",
    "svd": "compressors.svd:Svd",
    "dlrt": "compressors.dlrt:Dlrt",
    "grasp": "compressors.masks.grasp:Grasp",
    "lottery": "compressors.masks.lottery:Lottery",
    "mask-magnitude": "compressors.masks.magnitude:Magnitude",
    "mask-oba": "compressors.masks.oba:Oba",
    "mask-random": "compressors.masks.random:Random",
    "mask-taylor": "compressors.masks.taylor:Taylor",
    "snip": "compressors.masks.snip:Snip",
    "synflow": "compressors.masks.synflow:SynFlow",
    "unchanged": "compressors.unchanged:Unchanged",
    "cmoe": "compressors.cmoe:CMoE",
}
