# osjax for CPUs in a container, from the root of a clone: curation, data sets, trials and the demo.
#   docker build -f launch/cpu.Dockerfile -t osjax:cpu .
#   docker run -v "$PWD/runs:/work/runs" osjax:cpu demo --quick --workdir=runs/demo
# Parsed by hadolint 2.15. Never built, and none of its commands was run.
FROM python:3.13.9-slim-trixie
ARG EXTRAS=data,s3,gcs
RUN useradd --create-home --uid 1000 osjax && install -d -o osjax /work
COPY pyproject.toml setup.py README.md LICENSE /src/
COPY osjax /src/osjax
COPY configs /src/configs
RUN pip install --no-cache-dir "/src[$EXTRAS]" && rm -rf /src
COPY configs /work/configs
COPY launch /work/launch
USER 1000
WORKDIR /work
ENV JAX_PLATFORMS=cpu
HEALTHCHECK --interval=60s --timeout=30s CMD ["osjax", "--version"]
ENTRYPOINT ["osjax"]
CMD ["--help"]
