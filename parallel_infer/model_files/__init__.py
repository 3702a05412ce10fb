"""Files of models: where they lie, what belongs to them, and the copies that a run serves."""
