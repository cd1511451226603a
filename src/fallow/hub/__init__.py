"""The server that accepts jobs, holds the durable truth and leases work."""
