"""The HTTP door: Open Inference Protocol v2, Roboflow's API, plain POSTs, health and metrics."""
