"""The router: one address in front of many servers. Its core has no sockets, no clock and no chance of its own."""
