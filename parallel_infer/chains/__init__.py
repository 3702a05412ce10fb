"""Several models, one request: fans and chains as data, their text and their checks."""
