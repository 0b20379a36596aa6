"""The command `realmfs`: one sub-command per file."""
