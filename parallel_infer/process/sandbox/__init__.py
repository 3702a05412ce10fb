"""What a process that reads strangers' pictures can still do."""
