"""Routes that say what the service is: detectors, weights, limits, health, metrics."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fastapi import FastAPI
from starlette.responses import Response

from mai import __version__, weights
from mai.detectors import base
from mai.report import layers, words
from mai.serve import openapi
from mai.serve.refusal import Refusal, json_response

if TYPE_CHECKING:
    from mai.serve.app import Service


def routes(app: FastAPI, service: Service) -> None:
    """Add them."""

    @app.get("/v1/detectors", tags=["service"], operation_id="detectors", responses=openapi.errors(401))
    async def detectors() -> dict[str, Any]:
        """The layers that look at each picture, and those that are not asked here."""
        asked = service.scanner.detectors
        told = []
        for name in [*asked, *(n for n in base.names() if n not in asked)]:
            own = service.scanner.weights.get(name)
            told.append(
                {
                    "name": name,
                    "title": layers.title(name),
                    "looks_at": layers.looks_at(name),
                    "is_asked": name in asked,
                    "weights": own.name if own else None,
                }
            )
        return {"detectors": told, "not_checked": layers.not_asked(asked)}

    @app.get("/v1/weights", tags=["service"], operation_id="weights", responses=openapi.errors(401))
    async def weights_in_use() -> dict[str, Any]:
        """The trained networks in use, with the operating point and where it was measured."""
        scanner = service.scanner
        point = scanner.thresholds
        return {
            "weights": [
                {
                    "detector": name,
                    "name": own.name,
                    "sha256": own.config["sha256"],
                    "n_authentic": own.table.n_authentic,
                    "n_synthetic": own.table.n_synthetic,
                    "calibration_data": own.table.data,
                }
                for name, own in scanner.weights.items()
            ],
            "thresholds": point.to_dict() if point else None,
            "operating_point": (
                words.operating_point(point, scanner.measured.table) if point and scanner.measured else None
            ),
            "shipped": sorted(weights.available()),
        }

    @app.get("/v1/limits", tags=["service"], operation_id="limits")
    async def limits() -> dict[str, Any]:
        """What a request may cost, and what this service does; asks for no key."""
        told = service.settings
        return {
            "version": __version__,
            "needs_key": told.keys is not None,
            "has_jobs": told.data is not None,
            "has_urls": told.has_urls,
            "max_bytes": told.scan.limits.max_bytes,
            "max_pixels": told.scan.limits.max_pixels,
            "max_files": told.max_files,
            "max_body": told.max_body,
            "timeout_s": told.timeout_s,
            "n_workers": told.n_workers,
            "client_share": told.client_share,
        }

    @app.get("/healthz", tags=["service"], operation_id="alive", responses=openapi.errors(503))
    async def alive() -> dict[str, str]:
        """The process lives and can work; if not, start it again."""
        if service.desk.failure is not None:
            raise Refusal("stopping", f"The service cannot work: {service.desk.failure}")
        return {"status": "alive"}

    @app.get("/readyz", tags=["service"], operation_id="ready", responses=openapi.errors(503))
    async def ready() -> dict[str, Any]:
        """Weights are loaded and pictures are taken."""
        if service.desk.failure is not None:
            raise Refusal("stopping", f"The service cannot work: {service.desk.failure}")
        if service.stopping.is_set():
            raise Refusal("stopping", "The service is stopping. Try again in a moment.", 5.0)
        if not service.desk.n_ready:
            raise Refusal("stopping", "The weights are still being loaded.", 1.0)
        return {"status": "ready", "workers": service.desk.n_ready}

    @app.get(
        "/metrics",
        tags=["service"],
        operation_id="metrics",
        response_class=Response,
        responses={
            200: {"description": "Prometheus text.", "content": {"text/plain": {}}},
            **openapi.errors(401),
        },
    )
    async def metrics() -> Response:
        """Counters for Prometheus."""
        return Response(service.metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")

    @app.get("/v1/schema/{name}", tags=["service"], operation_id="schema", responses=openapi.errors(401, 404))
    async def schema(name: str) -> Response:
        """The published JSON Schema of a `record` or a `case`."""
        from mai.report import case
        from mai.report import schema as record_schema

        known = {"record": record_schema.schema, "case": case.schema}
        if name not in known:
            raise Refusal("not_found", "There are schemas of a record and of a case.")
        return json_response(known[name]())
