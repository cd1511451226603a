"""Steps from each version of the schema to the next: `v<n>.py` holds `upgrade()`, from n - 1 to n, in Alembic's operations.

A step must not import `schema`: it describes the tables as they were then.
"""
