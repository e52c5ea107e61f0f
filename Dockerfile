# Two stages: the first builds, the second holds one program and the certificates it needs.
#
#   docker build -t sotto .
#   docker run -p 8080:8080 -v sotto:/data -e SOTTO_SMS__SENDER=twilio … sotto
#
# Others can reach a container, so it refuses to start without an SMS sender. To try it out on your own machine:
#   docker run -p 127.0.0.1:8080:8080 -e SOTTO_DEV__INSECURE=true sotto

FROM rust:1.95-slim-bookworm AS build
WORKDIR /build
COPY . .
# The caches keep the registry and every compiled dependency between builds; only what changed is compiled again.
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/build/target \
    cargo build --release --locked --bin sotto \
    && cp target/release/sotto /usr/local/bin/sotto

FROM debian:bookworm-slim
RUN apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --system --uid 10001 --no-create-home --shell /usr/sbin/nologin sotto \
    && install -d -o sotto -g sotto -m 0700 /data
COPY --from=build /usr/local/bin/sotto /usr/local/bin/sotto

ENV SOTTO_HTTP__LISTEN=0.0.0.0:8080 \
    SOTTO_DATA__DIR=/data
USER 10001
WORKDIR /data
VOLUME /data
EXPOSE 8080
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=15s --timeout=6s --start-period=10s CMD ["sotto", "health"]
ENTRYPOINT ["sotto"]
CMD ["serve"]
