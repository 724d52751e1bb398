# All binaries in one image, with only the files that they need:
#
#   docker build -t receipts .
#   docker run --rm -p 127.0.0.1:8080:8080 receipts
#   docker run --rm -p 127.0.0.1:8080:8080 receipts receipts demo --stay
#   docker run --rm receipts receipts-query --help
FROM rust:1.95.0-slim-bookworm AS build
# The image's own toolchain: rust-toolchain.toml also names components that a build does not need.
ENV RUSTUP_TOOLCHAIN=1.95.0
# Debian removes older versions of packages, so pinned ones could not be installed for long.
# hadolint ignore=DL3008
RUN apt-get update \
 && apt-get install -y --no-install-recommends busybox-static ca-certificates g++ libssl-dev make pkg-config \
 && rm -rf /var/lib/apt/lists/*
WORKDIR /src
# --build-arg RECEIPTS_COMMIT=$(git rev-parse HEAD): the commit that --version names.
ARG RECEIPTS_COMMIT=
COPY . .
RUN --mount=type=cache,target=/usr/local/cargo/registry --mount=type=cache,target=/src/target \
    cargo build --profile dist --locked --workspace --bins \
 && docs/deploying/image/collect target/dist /root-of-image

FROM scratch
COPY --from=build /root-of-image/ /
COPY --from=build --chown=10001:10001 /root-of-image/var/lib/receipts /var/lib/receipts
ENV PATH=/usr/local/bin:/bin RECEIPTS_CONFIG=/etc/receipts/receipts.toml
USER 10001:10001
WORKDIR /var/lib/receipts
VOLUME /var/lib/receipts
EXPOSE 8080 8081
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=5s --timeout=3s --start-period=10s --retries=6 \
    CMD ["sh", "-c", "wget -q -O - http://127.0.0.1:${HEALTH_PORT:-8080}/livez"]
CMD ["receipts", "serve"]
