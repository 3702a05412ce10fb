"""What `parallel-infer doctor` looks at."""
