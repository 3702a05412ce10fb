"""Child processes: how they are started, what they are told, where they log."""
