"""Durable truth: one seam (`state.py`), its implementations, and the blob store. Knows no sockets and no scheduler."""
