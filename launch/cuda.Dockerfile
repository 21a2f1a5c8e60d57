# osjax for NVIDIA GPUs in a container, from the root of a clone. CUDA and cuDNN come with the wheels of jax.
#   docker build -f launch/cuda.Dockerfile -t osjax:cuda .
#   docker run --gpus all --shm-size=16g -v "$PWD/runs:/work/runs" osjax:cuda train --config=configs/smoke.py --workdir=runs/smoke
# Parsed by hadolint 2.15. Never built and never run on a GPU.
FROM python:3.13.9-slim-trixie
ARG EXTRAS=cuda,int8,s3,gcs
RUN useradd --create-home --uid 1000 osjax && install -d -o osjax /work
COPY pyproject.toml setup.py README.md LICENSE /src/
COPY osjax /src/osjax
COPY configs /src/configs
RUN pip install --no-cache-dir "/src[$EXTRAS]" && rm -rf /src
COPY configs /work/configs
COPY launch /work/launch
USER 1000
WORKDIR /work
# What launch/env_gpu.sh sets counts here too, and this process is the one that SIGTERM reaches.
HEALTHCHECK --interval=60s --timeout=30s CMD ["osjax", "--version"]
ENTRYPOINT ["bash", "-c", "source launch/env_gpu.sh && exec osjax \"$@\"", "osjax"]
CMD ["--help"]
