# mai serve in a container: docker build -t mai-identifier . ; then see docs/serve.md and compose.yaml
FROM python:3.13-slim-bookworm AS build
WORKDIR /src
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY mai ./mai
RUN python -m venv /opt/mai \
    && /opt/mai/bin/pip install --no-cache-dir --disable-pip-version-check --constraint constraints.txt ".[serve,heif]"

FROM python:3.13-slim-bookworm
COPY --from=build /opt/mai /opt/mai
ENV PATH=/opt/mai/bin:$PATH PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 HOME=/tmp
USER 10001:10001
WORKDIR /tmp
EXPOSE 8000
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=30s --timeout=5s --start-period=60s --retries=3 \
    CMD ["python", "-c", "import urllib.request as u; u.urlopen('http://127.0.0.1:8000/healthz', timeout=4)"]
ENTRYPOINT ["mai", "serve"]
CMD ["--host", "0.0.0.0", "--keys", "/run/secrets/mai_keys"]
