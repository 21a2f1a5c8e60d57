"""Numbers for Prometheus, of this server alone."""

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest


class Metrics:
    """All numbers. requests: answers by method, route and status; latency: of those; videos: by outcome; seconds: that
    videos took, by model; restarts: of the process of the models; refused: requests that were not let in."""

    def __init__(self):
        self._registry = CollectorRegistry()
        own = {"registry": self._registry}
        self.requests = Counter("osjax_requests", "Answers", ("method", "route", "status"), **own)
        self.latency = Histogram("osjax_request_seconds", "Until the answer begins", ("route",), **own)
        self.videos = Counter("osjax_videos", "Videos that are over", ("outcome",), **own)
        self.seconds = Histogram(
            "osjax_video_seconds",
            "From its start to its file",
            ("model",),
            buckets=(1, 3, 10, 30, 100, 300, 1000),
            **own,
        )
        self.restarts = Counter("osjax_model_restarts", "Of the process that runs the models", **own)
        self._waiting = Gauge("osjax_videos_by_status", "Videos in the store", ("status",), **own)
        self._followers = Gauge("osjax_followers", "Streams of events", **own)

    def text(self, counts: Callable[[], dict[str, int]], followers: int) -> bytes:
        """What Prometheus reads. counts: videos by status. followers: streams of events."""
        known = counts()
        for status in ("queued", "in_progress", "completed", "failed"):
            self._waiting.labels(status).set(known.get(status, 0))
        self._followers.set(followers)
        return generate_latest(self._registry)
