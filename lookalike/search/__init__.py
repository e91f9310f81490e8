"""From queries to neighbours: candidates, exact scores, filters, tombstones."""
