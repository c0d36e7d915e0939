# The image mylittlewebserver: `bin/build.sh --docker` builds it, `bin/run.sh --docker MODE` runs it.

# The first stage builds .venv at the path that it has in the second stage.
FROM python:3.13-slim-trixie AS build
RUN apt-get update && apt-get install --yes --no-install-recommends gcc libc6-dev
COPY --from=rust:1-slim-trixie /usr/local/rustup /usr/local/rustup
COPY --from=rust:1-slim-trixie /usr/local/cargo /usr/local/cargo
ENV RUSTUP_HOME=/usr/local/rustup CARGO_HOME=/usr/local/cargo PATH=/usr/local/cargo/bin:$PATH
WORKDIR /app
COPY . .
RUN bin/build.sh && .venv/bin/pip uninstall --yes maturin && rm -r .venv/wheel

FROM python:3.13-slim-trixie
# procps for `ps auxf`; tini reaps orphans, because the entry point is a shell script.
RUN apt-get update \
    && apt-get install --yes --no-install-recommends procps tini \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --create-home mlws
WORKDIR /app
COPY --from=build /app/.venv .venv
COPY bin/lib.sh bin/run.sh bin/
COPY examples examples
USER mlws
EXPOSE 8080
ENTRYPOINT ["tini", "--", "bin/run.sh"]
