"""What the processes of a server say to one another, and the sockets they say it through."""
