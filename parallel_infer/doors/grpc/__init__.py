"""The gRPC door: inference.GRPCInferenceService, as KServe and Triton define it, and grpc.health.v1.Health."""
