"""Parts of benchmarks/router.py."""
