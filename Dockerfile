# docker build -t nas .
# docker run --rm -it -v "$PWD":/work nas search
#
# With an NVIDIA GPU (`--gpus all`) what PyPI serves of PyTorch for x86-64 uses it. For CPUs alone, at a fifth of the size:
# --build-arg TORCH_INDEX=<where PyTorch's CPU builds are>.
ARG PYTHON=3.12
FROM python:${PYTHON}-slim

ARG TORCH_INDEX=""
COPY . /source
RUN grep '^torch==' /source/constraints.txt > /tmp/torch.txt \
    && python -m pip install --no-cache-dir ${TORCH_INDEX:+--index-url "$TORCH_INDEX"} -r /tmp/torch.txt
RUN python -m pip install --no-cache-dir -c /source/constraints.txt "/source[plots,postgresql]"

WORKDIR /work
ENTRYPOINT ["nas"]
