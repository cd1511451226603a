"""Version 0 was never released. It had no `jobs.span`, so that reading results from the middle looked at every row."""

import sqlalchemy as sa
from alembic import op


def upgrade() -> None:
    op.add_column("jobs", sa.Column("span", sa.BigInteger, nullable=False, server_default="0"))
    op.execute("UPDATE jobs SET span = coalesce((SELECT max(stop - start) FROM results WHERE job = jobs.number), 0)")
