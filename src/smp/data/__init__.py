"""Motion files to clips for training: formats, checks, conversion, selection."""
