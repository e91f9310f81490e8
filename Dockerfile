# Workers of Flink, Spark and Dataflow: docker build -t lookalike-worker .
# It starts as Beam's own image does: with --worker_pool as a pool beside a task manager, else as the engine says.
FROM apache/beam_python3.11_sdk:2.77.0

WORKDIR /opt/lookalike
COPY setup.py pyproject.toml constraints.txt README.md LICENSE NOTICE ./
COPY lookalike lookalike
COPY transforms transforms
COPY pipelines pipelines
RUN pip install --no-cache-dir -c constraints.txt '.[remote]'

# Models reach workers as files of the store. To have them in the image, fill a folder worker-cache beside this file by any
# query (lookalike query --store STORE --cache worker-cache …): what lies there is not fetched again.
COPY setup.py worker-cach[e] /opt/cache/lookalike/
RUN rm /opt/cache/lookalike/setup.py && chmod -R a+rwX /opt/cache
ENV XDG_CACHE_HOME=/opt/cache
