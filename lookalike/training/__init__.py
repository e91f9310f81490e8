"""From a uniform sample to a template: rotation, centroids, codes."""
