# syntax=docker/dockerfile:1
#
# Three stages: the dependencies, the program, and an image that holds the program and nothing to run beside it.
#
#   docker build -t sotto .
#   docker run -p 8080:8080 -v sotto:/data -e SOTTO_SMS__SENDER=twilio … sotto
#
# Others can reach a container, so it refuses to start without an SMS sender. To try it out on your own machine:
#   docker run -p 127.0.0.1:8080:8080 -e SOTTO_DEV__INSECURE=true sotto
#
# It runs with a read-only root file system, without capabilities, as user 65532; it writes to /data alone.

ARG RUST=1.95
ARG RUNTIME=gcr.io/distroless/cc-debian12:nonroot

# The manifests, the lock file and empty crates give a layer that holds every compiled dependency. It lasts until one
# of them changes, in a registry's cache as well, where the contents of a cache mount would not be.
FROM rust:${RUST}-slim-bookworm AS dependencies
# The image carries no line tables: backtraces name functions, and the program is a third of the size.
ENV CARGO_PROFILE_RELEASE_DEBUG=false
# For jemalloc; the image has a compiler.
RUN apt-get update && apt-get install --yes --no-install-recommends make && rm -rf /var/lib/apt/lists/*
WORKDIR /build
COPY .cargo .cargo
COPY Cargo.toml Cargo.lock ./
COPY protocol/Cargo.toml protocol/
COPY schema/Cargo.toml schema/
COPY actors/Cargo.toml actors/
COPY client/Cargo.toml client/
COPY benches/Cargo.toml benches/
RUN mkdir -p src tests protocol/src schema/src actors/src client/src benches/src \
    && touch src/lib.rs tests/main.rs benches/load.rs \
        protocol/src/lib.rs schema/src/lib.rs actors/src/lib.rs client/src/lib.rs benches/src/lib.rs \
    && echo 'fn main() {}' > src/main.rs \
    && cargo build --release --locked --bin sotto \
    # What was built of the empty crates must go: Cargo compares times, and the sources may be older than this layer.
    && cargo clean --release --locked \
        --package sotto --package sotto-protocol --package sotto-schema --package sotto-actors --package sotto-client \
        --package sotto-harness

FROM dependencies AS build
COPY protocol/src protocol/src
COPY migrations migrations
COPY schema/src schema/src
COPY actors/src actors/src
COPY client/migrations client/migrations
COPY client/src client/src
COPY benches/src benches/src
COPY src src
RUN cargo build --release --locked --offline --bin sotto \
    && install -D -m 0755 target/release/sotto /image/usr/local/bin/sotto \
    && install -d -m 0700 /image/data

# The C library, certificates and a user, no shell. For one to look around with: --build-arg RUNTIME=gcr.io/distroless/cc-debian12:debug-nonroot
FROM ${RUNTIME}
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="Sotto" \
      org.opencontainers.image.description="Self-hosted realtime server for end-to-end-encrypted messengers" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
COPY --from=build /image/usr/local/bin/sotto /usr/local/bin/sotto
COPY --from=build --chown=65532:65532 /image/data /data

ENV SOTTO_HTTP__LISTEN=0.0.0.0:8080 \
    SOTTO_DATA__DIR=/data
USER 65532:65532
WORKDIR /data
VOLUME /data
EXPOSE 8080
# The first one drains, within drain.timeout; leave the container a little longer than that.
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=15s --timeout=6s --start-period=30s --retries=3 CMD ["/usr/local/bin/sotto", "health"]
ENTRYPOINT ["/usr/local/bin/sotto"]
CMD ["serve"]
