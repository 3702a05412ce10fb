"""What a server is told, where it comes from, and how it is written down."""
