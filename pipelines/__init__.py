"""Entry points: flags and YAML become specs, specs become one chain of stages, the chain runs.

scan -> embed -> train -> shard -> certify -> publish (lookalike.pipelines.index); query (lookalike.pipelines.query).
"""
