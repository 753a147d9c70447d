"""The config of a study: its models are the single source of the JSON schema, the defaults and config/README.md.

Strict: an unknown key, a wrong type or a reference to something that does not exist is an error before any job starts. YAML reads `3e-4`
as a string, so numeric strings count as numbers, and 2.0 as the integer 2."""
