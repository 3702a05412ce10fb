"""The dispatcher: the one process that knows every job in flight.

`core` decides, without I/O and with the time given to it; `process` wraps it in sockets. `jobs`, `deadlines`,
`workers` and `served` are its nouns.
"""
