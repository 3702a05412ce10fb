"""What the benchmarks of faults share: checked payloads, a model that returns them, loads, faults and the tally."""
