"""What tasks write, made harmless for a terminal: see `scitq.saying`, where other layers find it too."""

from __future__ import annotations

from scitq.saying import Harmless as Harmless
from scitq.saying import harmless as harmless
