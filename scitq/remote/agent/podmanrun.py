"""One container of podman, which has no daemon: its own monitor process keeps the container, our programs come and go."""

from __future__ import annotations

from scitq.remote.agent.container import Ended, Process


class PodmanRun(Process):
    """A container of podman."""

    def follow(self) -> None:
        """Make and start it, or find it; then until its end."""
        raise Ended(None, "stage_in", "podman is not supported yet", error="EngineFailed")
