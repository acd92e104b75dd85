"""What listens: TF Serving's REST and gRPC surfaces and the retrieval API, in one process."""
