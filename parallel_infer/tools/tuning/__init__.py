"""Finding good settings for a model on a machine, by measuring; the default is measured too, and hard to beat."""
