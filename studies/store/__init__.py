"""The study database: tables, the verbs on them, queries and migrations."""
