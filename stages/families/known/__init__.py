"""The families that are known: one file each, which nothing else names but `stages/families/__init__.py`."""
