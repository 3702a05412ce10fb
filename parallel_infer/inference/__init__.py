"""A model on a device: providers, options, sessions and their engines."""
