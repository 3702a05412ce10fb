"""The gateway: the only process that clients talk to.

`process` is its loop, `requests` reads what clients send, `ingress` keeps payloads, `pending` what is owed to whom,
`lending` the rings of local clients.
"""
