"""Self-contained HTML: results and reports."""
