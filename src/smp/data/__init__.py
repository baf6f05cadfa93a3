"""From files of motion to clips that fit together: formats, checks, selection."""
