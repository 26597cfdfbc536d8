"""The study database: tables, the verbs on them, queries and migrations."""

SCHEMA = "0007"  # the newest migration in `migrations/versions`
