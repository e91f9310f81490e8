"""Entry points: flags and YAML become specs, specs become one chain of stages, the chain runs.

scan -> embed -> train -> shard -> certify -> publish     (index)
query                                                     (query)
"""
