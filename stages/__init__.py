"""What happens to a picture: one file per kind of process, in the order they stand in `pipeline`."""
