"""Requests of every door's protocol that somebody spoilt, and clients that send them; see benchmarks/fuzz_doors.py."""
