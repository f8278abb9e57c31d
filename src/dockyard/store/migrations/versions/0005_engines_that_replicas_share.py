"""Which replicas may share an engine, and with it its GPUs."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("replica", sa.Column("engine_group", sa.Text(), server_default="", nullable=False))


def downgrade() -> None:
    op.drop_column("replica", "engine_group")
