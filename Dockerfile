# All binaries in one image: docker build -t receipts . && docker run receipts receipts-query --help
FROM rust:1.95-slim-bookworm AS build
RUN apt-get update \
 && apt-get install -y --no-install-recommends g++ libssl-dev make pkg-config \
 && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY . .
RUN --mount=type=cache,target=/usr/local/cargo/registry --mount=type=cache,target=/src/target \
    cargo build --profile dist --locked --workspace --bins \
 && mkdir /out \
 && find target/dist -maxdepth 1 -type f -executable -name 'receipts*' -exec cp {} /out/ \;

FROM debian:bookworm-slim
RUN apt-get update \
 && apt-get install -y --no-install-recommends ca-certificates curl libssl3 \
 && rm -rf /var/lib/apt/lists/* \
 && useradd --system --uid 10001 --home-dir /var/lib/receipts --create-home receipts
COPY --from=build /out/ /usr/local/bin/
USER receipts
WORKDIR /var/lib/receipts
VOLUME /var/lib/receipts
EXPOSE 8080
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=5s --timeout=3s --start-period=10s --retries=6 \
    CMD curl --fail --silent --show-error "http://127.0.0.1:${HEALTH_PORT:-8080}/livez"
CMD ["receipts", "serve", "--data-dir", "/var/lib/receipts"]
