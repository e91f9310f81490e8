"""Where files come from (folders, globs, tar shards, tables, manifests), and their work units."""
