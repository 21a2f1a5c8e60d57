# osjax serve in a container, from the root of a clone:
#   docker build -f launch/serve.Dockerfile -t osjax-serve .                            # for CPUs
#   docker build -f launch/serve.Dockerfile -t osjax-serve --build-arg EXTRAS=serve,cuda .
#   docker run -v "$PWD/runs/demo:/run-served:ro" -v osjax:/data osjax-serve --make-key=me
#   docker run -p 8000:8000 -v "$PWD/runs/demo:/run-served:ro" -v osjax:/data osjax-serve        # --gpus all for CUDA
FROM python:3.13-slim
ARG EXTRAS=serve
RUN useradd --create-home --uid 1000 osjax && mkdir /data && chown osjax /data
COPY pyproject.toml setup.py README.md LICENSE /src/
COPY osjax /src/osjax
COPY configs /src/configs
RUN pip install --no-cache-dir "/src[$EXTRAS]" && rm -rf /src
USER osjax
WORKDIR /data
VOLUME /data
EXPOSE 8000
# Any other address than loopback asks each client for a key.
ENTRYPOINT ["osjax", "serve", "--workdir=/run-served", "--folder=/data/served", "--host=0.0.0.0"]
