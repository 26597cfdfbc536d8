"""What operators do to rows and columns: one file per family. The table is `compressors.groups.operators`."""
