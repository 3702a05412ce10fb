"""One file per peer. Each runs in that peer's environment with this folder's parent on its path."""
