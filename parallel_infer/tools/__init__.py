"""What measures, tunes and checks a server; nothing that serves imports it."""
