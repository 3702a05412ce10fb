"""The in-process asynchronous runner."""
