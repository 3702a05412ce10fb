"""The page at `/` of the HTTP door: its files, and what it is told while somebody looks at it."""
