"""Worker processes: the loop around a stage."""
