"""The study database: tables, the verbs on them, queries and migrations."""

SCHEMA = "0010"  # the newest migration in `migrations/versions`
