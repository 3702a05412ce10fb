"""What this machine and its control groups leave a process: cores, memory, descriptors."""
