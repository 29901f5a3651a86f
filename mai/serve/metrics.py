"""What Prometheus reads at /metrics."""

from __future__ import annotations

from functools import cache

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    PlatformCollector,
    ProcessCollector,
    generate_latest,
)

from mai import __version__
from mai.serve.desk import Desk
from mai.serve.look import Answer

SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
"""Upper ends of the histograms' buckets."""


class Metrics:
    """Counters of one service, in a registry of their own."""

    def __init__(self, desk: Desk) -> None:
        self.registry = CollectorRegistry()
        own = {"registry": self.registry}
        ProcessCollector(**own)
        PlatformCollector(**own)
        Gauge("mai_info", "Version of MAI.", ["version"], **own).labels(__version__).set(1)
        self._requests = Counter("mai_requests", "Requests answered.", ["method", "route", "status"], **own)
        self._request_seconds = Histogram(
            "mai_request_seconds", "Seconds from a request's headers to the end of its answer.",
            ["route"], buckets=SECONDS, **own,
        )  # fmt: skip
        self._images = Counter(
            "mai_images", "Images answered, by status and label.", ["status", "label"], **own
        )
        self._work = Histogram(
            "mai_image_work_seconds", "Seconds of work in a worker an image.", buckets=SECONDS, **own
        )
        gauge = Gauge("mai_images_taken", "Images taken and not answered yet.", **own)
        gauge.set_function(lambda: desk.n_taken)
        Gauge("mai_workers_ready", "Workers that can look.", **own).set_function(lambda: desk.n_ready)
        failed = Gauge(
            "mai_failed", "1: the workers cannot be started any more, /healthz says why; start again.", **own
        )
        failed.set_function(lambda: desk.failure is not None)
        deaths = Gauge("mai_worker_deaths", "Workers that died at work since the start.", **own)
        deaths.set_function(lambda: desk.n_deaths)
        # Counters by their labels: looking one up in the library takes a tenth of what a request costs here.
        self._of_image = cache(self._images.labels)
        self._of_request = cache(self._requests.labels)
        self._of_route = cache(self._request_seconds.labels)

    def image(self, answer: Answer) -> None:
        """Count one image."""
        self._of_image(answer.status, answer.label or "none").inc()
        if answer.seconds:
            self._work.observe(answer.seconds)

    def request(self, method: str, route: str, status: int, seconds: float) -> None:
        """Count one request; `route` is the path's pattern, so that callers cannot make labels."""
        known = method if method in ("GET", "POST", "DELETE", "HEAD", "OPTIONS") else "other"
        self._of_request(known, route, str(status)).inc()
        self._of_route(route).observe(seconds)

    def text(self) -> bytes:
        """The page that Prometheus reads."""
        text: bytes = generate_latest(self.registry)
        return text
