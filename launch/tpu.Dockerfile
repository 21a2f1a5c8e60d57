# osjax for TPU hosts in a container, from the root of a clone; the image of launch/gke.yaml.
#   docker build -f launch/tpu.Dockerfile -t osjax:tpu .
#   docker run --privileged --net=host osjax:tpu train --config=configs/smoke.py --workdir=/tmp/smoke   # on a TPU VM
# Parsed by hadolint 2.15. Never built and never run on a TPU.
FROM python:3.13.9-slim-trixie
ARG EXTRAS=tpu,gcs
RUN useradd --create-home --uid 1000 osjax && install -d -o osjax /work
COPY pyproject.toml setup.py README.md LICENSE /src/
COPY osjax /src/osjax
COPY configs /src/configs
RUN pip install --no-cache-dir "/src[$EXTRAS]" && rm -rf /src
COPY configs /work/configs
COPY launch /work/launch
USER 1000
WORKDIR /work
HEALTHCHECK --interval=60s --timeout=30s CMD ["osjax", "--version"]
ENTRYPOINT ["bash", "-c", "source launch/env_tpu.sh && exec osjax \"$@\"", "osjax"]
CMD ["--help"]
