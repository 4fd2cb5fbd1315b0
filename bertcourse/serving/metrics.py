"""What the service counts, for Prometheus. With several workers the counts lie in a shared folder and any worker gives the sum."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

FOLDER = "PROMETHEUS_MULTIPROC_DIR"  # prometheus-client looks at it when it is imported
LATENCY = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10)
SIZES = (1, 2, 4, 8, 16, 32, 64, 128)


class Metrics:
    """The counters of one process."""

    def __init__(self) -> None:
        from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
        own = CollectorRegistry()
        self._own = own
        self.requests = Counter("bertcourse_requests", "Requests by path and HTTP status", ["path", "status"], registry=own)
        self.errors = Counter("bertcourse_errors", "Requests that were refused or failed, by the code in their answer", ["code"], registry=own)
        self.latency = Histogram("bertcourse_request_seconds", "Seconds from the request's headers to its answer, /predict",
                                 buckets=LATENCY, registry=own)
        self.texts = Counter("bertcourse_texts", "Texts that were answered", registry=own)
        self.truncated = Counter("bertcourse_texts_truncated", "Texts of which a part was cut off", registry=own)
        self.batches = Histogram("bertcourse_batch_size", "Inputs in one forward pass", buckets=SIZES, registry=own)
        self.model = Histogram("bertcourse_model_seconds", "Seconds of one forward pass", buckets=LATENCY, registry=own)
        self.queue = Gauge("bertcourse_queue_inputs", "Inputs that wait for the model", registry=own, multiprocess_mode="livesum")
        self.unlogged = Counter("bertcourse_log_lines_dropped", "Log lines that were lost because nobody reads them or they cannot be written",
                                registry=own)
        self.ready = Gauge("bertcourse_ready_workers", "Workers whose model is loaded", registry=own, multiprocess_mode="livesum")

    def text(self) -> tuple[bytes, str]:
        """The counts of all workers, and their content type."""
        from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
        from prometheus_client.multiprocess import MultiProcessCollector
        registry = self._own
        if os.environ.get(FOLDER):
            registry = CollectorRegistry()
            MultiProcessCollector(registry)
        return generate_latest(registry), CONTENT_TYPE_LATEST


def forget(pid: int, folder: Path) -> None:
    """A worker is gone: its gauges no longer count, what it counted stays."""
    from prometheus_client.multiprocess import mark_process_dead
    mark_process_dead(pid, str(folder))
