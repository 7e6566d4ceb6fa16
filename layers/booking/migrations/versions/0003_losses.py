"""The gate's history says when Redis has lost the line."""

from alembic import op

revision = "0003"
down_revision = "0002"

_ACTIONS = """'set', 'started', 'restored', 'capacity', 'rate', 'pause', 'resume', 'message', 'open', 'close',
    'restart', 'draw'"""


def upgrade() -> None:
    op.execute(
        "alter table gate_change drop constraint gate_change_action_check,"
        f" add constraint gate_change_action_check check (action in ({_ACTIONS}))"
    )
