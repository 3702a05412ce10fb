"""The gateway: the only process that clients talk to.

`process` is its loop, `core` decides, `doors` are the public addresses, `requests` reads what clients send, `ingress`
keeps payloads, `pending` the jobs that have no reply yet, `lending` the rings of local clients.
"""
