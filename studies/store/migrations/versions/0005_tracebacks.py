"""Where an exception came from, how often a candidate was begun without getting on, final sizes, inputs."""

from studies.store.half import add_column

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    for table in ("runs", "supernets"):
        add_column(table, "tries INTEGER DEFAULT 0 NOT NULL")
        add_column(table, "traceback TEXT")
    add_column("studies", "final_size TEXT")
    add_column("studies", "inputs TEXT")
