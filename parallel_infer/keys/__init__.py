"""Keys of servers and clients: their files and their meaning."""
