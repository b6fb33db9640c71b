# The server for CPU or NVIDIA GPUs; the weights that come with the project are part of it.
FROM python:3.11-slim-bookworm

# g++ and make: sam2 and a few of MONAI Label's packages come as source.
RUN apt-get update \
    && apt-get install --yes --no-install-recommends g++=4:12.2.* make=4.3-* \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --create-home --uid 1000 biosam2

WORKDIR /opt/biosam2
COPY Makefile requirements.txt constraints.txt ./
RUN make install VENV=/opt/venv PYTHON=python3.11

COPY apps apps
COPY sample_study sample_study
# MONAI Label makes these folders in the app, and the app writes weights and logs there.
RUN mkdir -p apps/biosam2/bin apps/biosam2/logs /studies /sessions \
    && chown -R biosam2 apps/biosam2/model apps/biosam2/bin apps/biosam2/logs /studies /sessions

# By its number, so that a host can tell that it is not root.
USER 1000
ENV PATH=/opt/venv/bin:/usr/local/bin:/usr/bin:/bin \
    PYTHONPATH=/opt/biosam2/apps/biosam2:/opt/biosam2 \
    PYTHONDONTWRITEBYTECODE=1 \
    MONAI_LABEL_SESSION_PATH=/sessions
EXPOSE 8000
HEALTHCHECK --start-period=120s --interval=30s --timeout=10s CMD \
    ["python", "-c", "import urllib.request as u; u.urlopen('http://127.0.0.1:8000/health', timeout=5)"]
ENTRYPOINT ["monailabel", "start_server", "--app", "/opt/biosam2/apps/biosam2", "--host", "0.0.0.0"]
CMD ["--studies", "/studies"]
