"""Answers: their arrays, the documented result map, and how they are drawn on pictures."""
