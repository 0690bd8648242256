# The whole product in one image: webserver, daemon and training. GPU-ready: torch from the registry brings its CUDA libraries,
# and the container sees the devices that it is run with (docker run --gpus all ...).
FROM python:3.11.14-slim-bookworm AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
WORKDIR /app
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY trainpipe_assets ./trainpipe_assets
RUN python -m venv /opt/venv \
 && /opt/venv/bin/python -m pip install --constraint constraints.txt .

FROM python:3.11.14-slim-bookworm
ENV PATH=/opt/venv/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    DAGSTER_HOME=/data/dagster \
    TRAINPIPE_LAKE=/data/lake \
    TRAINPIPE_LANDING=/data/landing \
    TRAINPIPE_MODELS=/data/models \
    TRAINPIPE_SCRATCH=/data/scratch
RUN groupadd --gid 10001 trainpipe \
 && useradd --uid 10001 --gid trainpipe --no-create-home --home-dir /app trainpipe \
 && mkdir -p /data/dagster && chown -R trainpipe:trainpipe /data
COPY --from=build /opt/venv /opt/venv
WORKDIR /app
# The defs folder is found from the pyproject.toml above it, so both stand here as well as in the environment.
COPY pyproject.toml workspace.yaml dagster.yaml dagster.postgres.yaml docker-entrypoint.sh ./
COPY trainpipe_assets ./trainpipe_assets
USER trainpipe
VOLUME /data
EXPOSE 3000
HEALTHCHECK --interval=30s --timeout=5s --start-period=90s --retries=3 \
  CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:3000/server_info', timeout=4)"]
ENTRYPOINT ["/bin/sh", "docker-entrypoint.sh"]
CMD ["dagster", "dev", "--workspace", "workspace.yaml", "--host", "0.0.0.0", "--port", "3000"]
