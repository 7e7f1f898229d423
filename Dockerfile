# virtfleet's images: docs/howto/container-images.md says how to build and use them.
#   docker build --target operator|node|ovn|libvirt .
# Any Debian 12 will do as BASE: one of your own registry, or one that knows your mirror.
ARG BASE=debian:12-slim

# What builds; nothing of it is in an image but what is copied from it.
FROM ${BASE} AS builder
ENV DEBIAN_FRONTEND=noninteractive PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore
RUN apt-get update \
 && apt-get install -y --no-install-recommends ca-certificates gcc libc6-dev libvirt-dev pkg-config python3-dev python3-pip \
 && rm -rf /var/lib/apt/lists/*
WORKDIR /build
# The secrets are for those who have a package index of their own: a pip.conf, and the authorities to trust, in PEM.
COPY containers/build.lock ./
RUN --mount=type=secret,id=pip.conf,target=/etc/pip.conf --mount=type=secret,id=ca.crt,target=/run/secrets/ca.crt \
    python3 -m venv --without-pip tools \
 && pip --python tools/bin/python install --require-hashes --no-deps --only-binary :all: -r build.lock

# What each target is made of, without virtfleet itself: changes of the code leave these layers as they are.
FROM builder AS operator-packages
COPY containers/operator.lock ./
RUN --mount=type=secret,id=pip.conf,target=/etc/pip.conf --mount=type=secret,id=ca.crt,target=/run/secrets/ca.crt \
    pip wheel --require-hashes --no-deps --no-build-isolation -w wheels -r operator.lock \
 && python3 -m venv --without-pip /opt/virtfleet \
 && pip --python /opt/virtfleet/bin/python install --no-index --no-deps --no-compile wheels/*.whl
# The Kubernetes client has 150 MB of generated code, loaded when used. The operator writes its requests itself.
RUN rm /opt/virtfleet/lib/python3*/site-packages/kubernetes/client/api/*_api.py \
    /opt/virtfleet/lib/python3*/site-packages/kubernetes/aio/client/api/*_api.py \
 && python3 -m compileall -q -x '/kubernetes/(aio/)?client/models/' /opt/virtfleet/lib

FROM builder AS node-packages
COPY containers/node.lock ./
RUN --mount=type=secret,id=pip.conf,target=/etc/pip.conf --mount=type=secret,id=ca.crt,target=/run/secrets/ca.crt \
    pip wheel --require-hashes --no-deps --no-build-isolation -w wheels -r node.lock \
 && python3 -m venv --without-pip /opt/virtfleet \
 && pip --python /opt/virtfleet/bin/python install --no-index --no-deps wheels/*.whl

# Each has the packages of virtfleet that it needs, and one program.
FROM operator-packages AS operator-built
COPY pyproject.toml README.md LICENSE ./
COPY crds/src crds/src
COPY operator/src operator/src
RUN tools/bin/python -m hatchling build -t wheel -d built \
 && pip --python /opt/virtfleet/bin/python install --no-index --no-deps built/*.whl \
 && find /opt/virtfleet/bin -type f ! -name virtfleet-operator -delete

FROM node-packages AS node-built
COPY pyproject.toml README.md LICENSE ./
COPY crds/src crds/src
COPY node-daemon/src node-daemon/src
RUN tools/bin/python -m hatchling build -t wheel -d built \
 && pip --python /opt/virtfleet/bin/python install --no-index --no-deps built/*.whl \
 && find /opt/virtfleet/bin -type f ! -name virtfleet-node -delete

# The Debian packages of each image. No program of theirs needs more rights than its user has.
FROM ${BASE} AS operator-debian
RUN apt-get update \
 && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends python3 \
 && find / -xdev -type f -perm /6000 -exec chmod ug-s {} + \
 && rm -rf /var/lib/apt/lists/* /var/cache/* /var/log/*

FROM ${BASE} AS node-debian
RUN apt-get update \
 && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends \
    ca-certificates iproute2 libvirt0 nftables openvswitch-switch ovn-common python3 qemu-utils \
 && find / -xdev -type f -perm /6000 -exec chmod ug-s {} + \
 && rm -rf /var/lib/apt/lists/* /var/cache/* /var/log/*

FROM operator-debian AS operator
COPY --from=operator-built /opt/virtfleet /opt/virtfleet
ENV LANG=C.UTF-8 PATH=/opt/virtfleet/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
    PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1
USER 65532:65532
ENTRYPOINT ["virtfleet-operator"]
CMD ["--config", "/etc/virtfleet/operator.yaml"]

FROM node-debian AS node
COPY --from=node-built /opt/virtfleet /opt/virtfleet
ENV LANG=C.UTF-8 PATH=/opt/virtfleet/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
    PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1
ENTRYPOINT ["virtfleet-node"]
CMD ["--config", "/etc/virtfleet/node.yaml"]
