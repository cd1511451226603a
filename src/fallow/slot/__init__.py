"""What runs inside a worker process. Standard library and cloudpickle only: it must start fast, in any environment."""
