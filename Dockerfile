# Nodes, producers and Flower of inferq, with the packaged model. docker-compose.yml runs it.
ARG PYTHON_IMAGE=python:3.11-slim-bookworm

# What inferq needs, which changes seldom: a layer of its own.
FROM ${PYTHON_IMAGE} AS dependencies
ARG EXTRAS=llamacpp,openai,flower,metrics,cli
# Another place with builds of llama.cpp, such as for CUDA; pip reads it.
ARG PIP_EXTRA_INDEX_URL=
ENV PIP_NO_CACHE_DIR=1
WORKDIR /src
COPY pyproject.toml README.md LICENSE ./
COPY scripts/venv.sh scripts/install scripts/
COPY inferq/version.py inferq/
RUN scripts/install /opt/inferq "$EXTRAS"

FROM ${PYTHON_IMAGE}
# llama.cpp computes with OpenMP.
RUN apt-get update \
    && apt-get install --yes --no-install-recommends libgomp1 libstdc++6 \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --uid 10001 --create-home --home-dir /home/inferq inferq
COPY --from=dependencies /opt/inferq /opt/inferq
COPY deploy/docker/node.sh deploy/docker/flower.sh deploy/docker/health.sh /opt/inferq/bin/
COPY inferq /opt/inferq/lib/python3.11/site-packages/inferq
RUN /opt/inferq/bin/python -m compileall -q /opt/inferq/lib/python3.11/site-packages/inferq
ENV PATH=/opt/inferq/bin:$PATH PYTHONUNBUFFERED=1 OMP_WAIT_POLICY=passive
USER 10001:10001
WORKDIR /home/inferq
CMD ["node.sh", "mixed"]
