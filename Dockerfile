# docker build --target cpu -t lipsync:cpu .
# docker build --target gpu -t registry.example/lipsync:gpu .
#
# One image for head, workers and batches; the code is in it. CUDA's libraries come with PyTorch's wheels and the driver
# with the node, so both targets start from the same small image and differ in PyTorch's build alone.
ARG PYTHON=3.11-slim-bookworm

FROM python:${PYTHON} AS tools
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PATH=/opt/venv/bin:$PATH
RUN apt-get update && apt-get install -y --no-install-recommends gcc libc6-dev && rm -rf /var/lib/apt/lists/* \
    && python -m venv /opt/venv && pip install "setuptools>=80" wheel
WORKDIR /app
# Dependencies before the code: they change less often. The project itself is empty here and installed below.
COPY pyproject.toml README.md LICENSE ./

FROM tools AS made-cpu
# Address of PyTorch's index of CPU builds; without one, the package index's own build is taken, which may bring CUDA.
ARG TORCH_INDEX=""
RUN if [ -n "$TORCH_INDEX" ]; then pip install --index-url "$TORCH_INDEX" torch==2.13.0; fi \
    && pip install --no-build-isolation .
COPY . .
RUN pip install --no-deps --no-build-isolation --editable .

FROM tools AS made-gpu
# Address of PyTorch's index of CUDA builds; without one, the package index's own build is taken.
ARG TORCH_INDEX=""
RUN if [ -n "$TORCH_INDEX" ]; then pip install --index-url "$TORCH_INDEX" torch==2.13.0; fi \
    && pip install --no-build-isolation . triton==3.9.0
COPY . .
RUN pip install --no-deps --no-build-isolation --editable .

# bash and wget: the operator starts Ray in the one and asks its health with the other. gcc: Triton compiles its launchers.
FROM python:${PYTHON} AS base
RUN apt-get update && apt-get install -y --no-install-recommends bash wget gcc libc6-dev && rm -rf /var/lib/apt/lists/* \
    && groupadd --gid 1000 lipsync && useradd --uid 1000 --gid 1000 --create-home lipsync \
    && mkdir -p /cache /data && chown lipsync:lipsync /cache /data
ENV PATH=/opt/venv/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 LIPSYNC_CACHE=/cache RAY_USAGE_STATS_ENABLED=0
WORKDIR /app
EXPOSE 8000
CMD ["lipsync", "serve", "--help"]

FROM base AS cpu
COPY --from=made-cpu /opt/venv /opt/venv
COPY --from=made-cpu /app /app
USER 1000:1000

FROM base AS gpu
COPY --from=made-gpu /opt/venv /opt/venv
COPY --from=made-gpu /app /app
ENV NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility,video
USER 1000:1000
