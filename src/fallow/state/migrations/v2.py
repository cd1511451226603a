"""Version 1 kept of a job's failures only their count and the first hundred, so that a restart forgot which others failed."""

from collections import defaultdict

import msgspec
import sqlalchemy as sa
from alembic import op


def upgrade() -> None:
    op.drop_column("jobs", "failed")
    op.add_column("jobs", sa.Column("failed", sa.LargeBinary))
    connection = op.get_bind()
    failed: dict[int, set[int]] = defaultdict(set)
    for number, pages in connection.execute(sa.text("SELECT job, pages FROM results WHERE failed > 0")):
        for page, counts in msgspec.msgpack.decode(pages):
            ranges = [range(*pair) for pair in zip(counts[::2], counts[1::2], strict=True)]
            failed[number] |= {each[0] for each in page[5] if any(each[0] in counted for counted in ranges)}
    for number, indices in failed.items():
        edges = sorted(indices ^ {index + 1 for index in indices})  # where ranges begin and end
        packed = msgspec.msgpack.encode([after - before for before, after in zip([0, *edges], edges, strict=False)])
        connection.execute(
            sa.text("UPDATE jobs SET failed = :packed WHERE number = :number"), {"packed": packed, "number": number}
        )
