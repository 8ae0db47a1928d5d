# mmsparse with its MM stack; the first stage compiles mmcv, the second has no compiler.
#   CPU:   docker build -t mmsparse --build-arg TORCH=torch==2.13.0+cpu --build-arg PIP_EXTRA_INDEX_URL=... .
#   CUDA:  docker build -t mmsparse --build-arg BUILD_IMAGE=nvidia/cuda:12.6.3-devel-ubuntu22.04 \
#            --build-arg RUN_IMAGE=nvidia/cuda:12.6.3-base-ubuntu22.04 --build-arg FORCE_CUDA=1 .
# Both images need apt, the same Python (3.10 or 3.11) as python3, and for CUDA the version of torch.
ARG BUILD_IMAGE=debian:bookworm-slim
ARG RUN_IMAGE=debian:bookworm-slim

FROM ${BUILD_IMAGE} AS build
ARG STACK=stock
ARG TORCH=
# Where pip finds that torch, if not where it looks anyway.
ARG PIP_EXTRA_INDEX_URL=
# 1: mmcv's operators for CUDA too; there is no GPU while an image is built. Fewer architectures build faster.
ARG FORCE_CUDA=0
ARG TORCH_CUDA_ARCH_LIST="7.5 8.0 8.6 8.9 9.0"
# The versions of the base image's own packages are the right ones: they change with its tag.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends g++ make python3 python3-dev python3-venv \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /opt/mmsparse
COPY . .
# An environment cannot be moved, as its scripts name its place; so the forks' gets a second name.
RUN make install STACK="${STACK}" TORCH="${TORCH}" \
    && if [ "${STACK}" = onedl ]; then ln -s .venv-onedl .venv; fi \
    && rm -rf "${HOME}/.cache"

FROM ${RUN_IMAGE}
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends libgomp1 python3 \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --uid 1000 --create-home mmsparse
COPY --from=build /opt/mmsparse /opt/mmsparse
ENV PATH=/opt/mmsparse/.venv/bin:$PATH
USER 1000
WORKDIR /home/mmsparse
CMD ["python", "-m", "mmsparse.doctor"]
