# virtfleet's images: docs/howto/container-images.md says how to build and use them.
#   docker build --target operator|node|ovn|libvirt --build-arg REVISION="$(git rev-parse HEAD)" .
# Any Debian 12 will do as BASE: one of your own registry, or one that knows your mirror.
ARG BASE=debian:12-slim
ARG VERSION=0.1.0
ARG REVISION=unknown
# Where the code is: an address, for those who distribute images.
ARG SOURCE=

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
    pip wheel --require-hashes --no-deps --no-build-isolation -w wheels -r operator.lock
# setuptools is there for pbr, which wants it for builds alone. The Kubernetes client has 150 MB of generated code, of
# which the operator, which writes its requests itself, loads nothing; and netaddr a list of who makes network cards.
RUN rm wheels/setuptools-*.whl \
 && python3 -m venv --without-pip /opt/virtfleet \
 && pip --python /opt/virtfleet/bin/python install --no-index --no-deps --no-compile wheels/*.whl \
 && find /opt/virtfleet \( -path '*/kubernetes/*client/api/*_api.py' \
    -o -path '*/kubernetes/aio/client/models/*_*[!_].py' -o -path '*/netaddr/eui/*.idx' \
    -o -path '*/netaddr/eui/*.txt' -o -name direct_url.json \) -delete \
 && python3 -m compileall -q -x '/kubernetes/client/models/' /opt/virtfleet/lib

FROM builder AS node-packages
COPY containers/node.lock ./
RUN --mount=type=secret,id=pip.conf,target=/etc/pip.conf --mount=type=secret,id=ca.crt,target=/run/secrets/ca.crt \
    pip wheel --require-hashes --no-deps --no-build-isolation -w wheels -r node.lock \
 && python3 -m venv --without-pip /opt/virtfleet \
 && pip --python /opt/virtfleet/bin/python install --no-index --no-deps wheels/*.whl \
 && find /opt/virtfleet -name direct_url.json -delete

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

FROM ${BASE} AS ovn-debian
RUN apt-get update \
 && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends \
    openvswitch-switch ovn-central ovn-host tini \
 && find / -xdev -type f -perm /6000 -exec chmod ug-s {} + \
 && rm -rf /var/lib/apt/lists/* /var/cache/* /var/log/*

FROM ${BASE} AS libvirt-debian
RUN apt-get update \
 && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends \
    libvirt-daemon-system libvirt-daemon-system-sysv openvswitch-switch qemu-system-x86 qemu-utils tini \
 && rm /etc/libvirt/qemu/networks/default.xml \
 && find / -xdev -type f -perm /6000 -exec chmod ug-s {} + \
 && rm -rf /var/lib/apt/lists/* /var/cache/* /var/log/*

# What is in each image, with licences.
FROM builder AS lists
COPY containers/sbom.py ./

FROM lists AS operator-list
ARG VERSION
COPY --from=operator-debian /var/lib/dpkg root/var/lib/dpkg
COPY --from=operator-debian /usr/share/doc root/usr/share/doc
COPY --from=operator-built /opt/virtfleet /opt/virtfleet
RUN tools/bin/python sbom.py virtfleet-operator "$VERSION" root /opt/virtfleet >sbom.json

FROM lists AS node-list
ARG VERSION
COPY --from=node-debian /var/lib/dpkg root/var/lib/dpkg
COPY --from=node-debian /usr/share/doc root/usr/share/doc
COPY --from=node-built /opt/virtfleet /opt/virtfleet
RUN tools/bin/python sbom.py virtfleet-node "$VERSION" root /opt/virtfleet >sbom.json

FROM lists AS ovn-list
ARG VERSION
COPY --from=ovn-debian /var/lib/dpkg root/var/lib/dpkg
COPY --from=ovn-debian /usr/share/doc root/usr/share/doc
RUN tools/bin/python sbom.py virtfleet-ovn "$VERSION" root >sbom.json

FROM lists AS libvirt-list
ARG VERSION
COPY --from=libvirt-debian /var/lib/dpkg root/var/lib/dpkg
COPY --from=libvirt-debian /usr/share/doc root/usr/share/doc
RUN tools/bin/python sbom.py virtfleet-libvirt "$VERSION" root >sbom.json

# The images themselves.
FROM operator-debian AS operator
COPY --from=operator-built /opt/virtfleet /opt/virtfleet
COPY --from=operator-list /build/sbom.json /usr/share/virtfleet/sbom.json
ENV LANG=C.UTF-8 PATH=/opt/virtfleet/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
    PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1
USER 65532:65532
ENTRYPOINT ["virtfleet-operator"]
CMD ["--config", "/etc/virtfleet/operator.yaml"]
ARG VERSION
ARG REVISION
ARG SOURCE
LABEL org.opencontainers.image.title="virtfleet-operator" \
      org.opencontainers.image.description="Runs virtual machines on a fleet of nodes, as Kubernetes objects ask" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="$VERSION" \
      org.opencontainers.image.revision="$REVISION" \
      org.opencontainers.image.source="$SOURCE"

FROM node-debian AS node
COPY --from=node-built /opt/virtfleet /opt/virtfleet
COPY --from=node-list /build/sbom.json /usr/share/virtfleet/sbom.json
ENV LANG=C.UTF-8 PATH=/opt/virtfleet/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
    PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1
ENTRYPOINT ["virtfleet-node"]
CMD ["--config", "/etc/virtfleet/node.yaml"]
ARG VERSION
ARG REVISION
ARG SOURCE
LABEL org.opencontainers.image.title="virtfleet-node" \
      org.opencontainers.image.description="Runs a node's virtual machines by its libvirtd, for virtfleet's operator" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="$VERSION" \
      org.opencontainers.image.revision="$REVISION" \
      org.opencontainers.image.source="$SOURCE"

FROM ovn-debian AS ovn
COPY containers/ovn.sh /usr/local/bin/virtfleet-ovn
COPY --from=ovn-list /build/sbom.json /usr/share/virtfleet/sbom.json
ENTRYPOINT ["tini", "--", "virtfleet-ovn"]
ARG VERSION
ARG REVISION
ARG SOURCE
LABEL org.opencontainers.image.title="virtfleet-ovn" \
      org.opencontainers.image.description="OVN's databases and northd, ovn-controller and Open vSwitch, for virtfleet" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="$VERSION" \
      org.opencontainers.image.revision="$REVISION" \
      org.opencontainers.image.source="$SOURCE"

FROM libvirt-debian AS libvirt
COPY containers/libvirt.sh /usr/local/bin/virtfleet-libvirt
COPY --from=libvirt-list /build/sbom.json /usr/share/virtfleet/sbom.json
ENTRYPOINT ["tini", "--", "virtfleet-libvirt"]
CMD ["libvirtd"]
ARG VERSION
ARG REVISION
ARG SOURCE
LABEL org.opencontainers.image.title="virtfleet-libvirt" \
      org.opencontainers.image.description="libvirtd and QEMU, for hosts of virtfleet that have none" \
      org.opencontainers.image.licenses="LGPL-2.1-or-later AND GPL-2.0-only" \
      org.opencontainers.image.version="$VERSION" \
      org.opencontainers.image.revision="$REVISION" \
      org.opencontainers.image.source="$SOURCE"
