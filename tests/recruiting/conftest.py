"""Engines that rent from a make-believe cloud."""

from __future__ import annotations

from tests.renting.conftest import Opener, dream, open_engine

__all__ = ["Opener", "dream", "open_engine"]
