"""The study database: tables, the verbs on them, queries and migrations."""

SCHEMA = "0009"  # the newest migration in `migrations/versions`
