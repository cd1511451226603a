"""Version 2 knew no checkpoints of tasks."""

import sqlalchemy as sa
from alembic import op


def upgrade() -> None:
    op.create_table(
        "checkpoints",
        sa.Column("job", sa.BigInteger, nullable=False),
        sa.Column("index", sa.BigInteger, nullable=False),
        sa.Column("digest", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("job", "index"),
    )
    op.create_index("checkpoints_by_digest", "checkpoints", ["digest"])
