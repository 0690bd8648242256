# The whole product in one image: webserver, daemon and training. GPU-ready: torch from the registry brings its CUDA libraries,
# and the container sees the devices that it is run with (docker run --gpus all ...).
FROM python:3.11.14-slim-bookworm AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
WORKDIR /app
COPY pyproject.toml constraints.txt README.md LICENSE ./
# Of the package only its front door: installed editable, it is read from /app below, and a change of it keeps this slow layer.
COPY trainpipe_assets/__init__.py ./trainpipe_assets/
RUN python -m venv /opt/venv \
 && /opt/venv/bin/python -m pip install --constraint constraints.txt --editable .

FROM python:3.11.14-slim-bookworm
# For labels of other scripts in pictures; their version is whatever the base image's archive has.
# hadolint ignore=DL3008
RUN apt-get update && apt-get install --yes --no-install-recommends fonts-noto-cjk && rm -rf /var/lib/apt/lists/*
ENV PATH=/opt/venv/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    DAGSTER_HOME=/data/dagster \
    TRAINPIPE_LAKE=/data/lake \
    TRAINPIPE_LANDING=/data/landing \
    TRAINPIPE_MODELS=/data/models \
    TRAINPIPE_SCRATCH=/data/scratch
RUN groupadd --gid 10001 trainpipe \
 && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /data trainpipe \
 && mkdir /data && chown 10001:10001 /data
COPY --from=build /opt/venv /opt/venv
WORKDIR /app
# The defs folder is found from the pyproject.toml above it.
COPY pyproject.toml workspace.yaml dagster.yaml dagster.postgres.yaml docker-entrypoint.sh ./
COPY trainpipe_assets ./trainpipe_assets
# Compiled here once: every run, step and sensor is a process that loads the definitions, and none of them may write to /app.
RUN python -m compileall -q trainpipe_assets
USER 10001:10001
VOLUME /data
EXPOSE 3000
# On SIGINT Dagster ends its services in order; as the first process of a container it would not notice a SIGTERM.
STOPSIGNAL SIGINT
HEALTHCHECK --interval=30s --timeout=5s --start-period=90s --retries=3 \
  CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:3000/server_info', timeout=4)"]
ENTRYPOINT ["/bin/sh", "/app/docker-entrypoint.sh"]
CMD ["dagster", "dev", "--workspace", "workspace.yaml", "--host", "0.0.0.0", "--port", "3000"]
