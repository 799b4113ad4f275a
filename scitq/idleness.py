"""When a rented machine that has nothing to do is let go."""

from __future__ import annotations

from scitq.roster import Staff

# A machine without work is let go after a while: a shorter one if a recruiter got it, a longer one if a person did.
IDLE_S = 300.0
IDLE_BY_HAND_S = 3600.0
# Where time is billed in larger pieces than this, the one that was begun is used up, but for so much that it takes to let go.
LARGE_S = 600
LETTING_GO_S = 120
# And by the end of a piece it must have been without work for so long.
LEAST_IDLE_S = 60.0


def end_of(each: Staff, idle_ms: int, now_ms: int) -> int:
    """When a worker that has had nothing to do since then is let go, if that stays so."""
    rental, settings = each.rental, each.row.settings
    assert rental is not None
    usual_s = IDLE_BY_HAND_S if rental.rank is None else IDLE_S
    said_s = settings.get("idle_timeout")
    limit_ms = idle_ms + int(1000 * (usual_s if said_s is None else said_s))
    if said_s is not None or not rental.price or rental.accepted_ms is None:
        return limit_ms
    if rental.billed_s < LARGE_S:
        return max(limit_ms, rental.accepted_ms + 1000 * (rental.minimum_s - LETTING_GO_S))
    # What is paid for is used up: it may be needed again. Nothing more is begun.
    piece, first = 1000 * rental.billed_s, rental.accepted_ms + 1000 * max(rental.minimum_s - rental.billed_s, 0)
    since = max(idle_ms + int(1000 * LEAST_IDLE_S) + 1000 * LETTING_GO_S, now_ms + 1)
    pieces = max(1, -(-(since - first) // piece))
    return first + pieces * piece - 1000 * LETTING_GO_S
