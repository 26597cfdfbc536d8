"""How much the units of a network matter: one file per score (`compressors.importance.score`)."""
