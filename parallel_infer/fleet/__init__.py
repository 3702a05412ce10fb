"""Many machines with a server each, placed, watched, restarted and rolled by Ray Serve; jobs travel by the router."""
