# osjax serve in a container, from the root of a clone:
#   docker build -f launch/serve.Dockerfile -t osjax-serve .                            # for CPUs
#   docker build -f launch/serve.Dockerfile -t osjax-serve --build-arg EXTRAS=serve,cuda .
#   docker run -v "$PWD/runs/demo:/run-served:ro" -v osjax:/data osjax-serve --make-key=me
#   docker run -p 8000:8000 -v "$PWD/runs/demo:/run-served:ro" -v osjax:/data osjax-serve        # --gpus all for CUDA
# Parsed by hadolint 2.15. Never built.
FROM python:3.13.9-slim-trixie
ARG EXTRAS=serve
RUN useradd --create-home --uid 1000 osjax && mkdir /data && chown osjax /data
COPY pyproject.toml setup.py README.md LICENSE /src/
COPY osjax /src/osjax
COPY configs /src/configs
RUN pip install --no-cache-dir "/src[$EXTRAS]" && rm -rf /src
USER 1000
WORKDIR /data
VOLUME /data
EXPOSE 8000
HEALTHCHECK --interval=30s --timeout=10s --start-period=120s CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8000/health')"]
# Any other address than loopback asks each client for a key.
ENTRYPOINT ["osjax", "serve", "--workdir=/run-served", "--folder=/data/served", "--host=0.0.0.0"]
