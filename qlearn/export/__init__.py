"""Export: files of other programs, written and read (paper §3.5). Optional dependencies are imported where used."""
