"""The inference server: takes generation requests over ZeroMQ, runs engines in a worker process, streams frames back."""
