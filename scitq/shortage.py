"""Why a recruiter gets no machines, in words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from scitq.ranking import Ranking
from scitq.roster import Short
from scitq.worker import Recruiter


def shortage(rule: Recruiter, ranking: Ranking, refused: Mapping[int, str]) -> str:
    """Why nothing of what is sold does."""
    flavor = "any flavor" if rule.flavor is None else rule.flavor
    where = f" in {rule.region}" if rule.region not in (None, "auto") else ""
    if ranking.ranked:
        first = ranking.ranked[0].offer
        why = refused.get(0, "no task that waits fits on it")
        return f"no offer of {flavor}{where} can be had now: {first.flavor.name} in {first.region}: {why}"
    if ranking.excluded:
        one = min(ranking.excluded, key=lambda one: (one.offer.price is None, one.offer.price or 0.0, one.offer.key))
        count = len(ranking.excluded)
        return f"no offer meets {flavor}{where} now ({count} were looked at): {one.offer.flavor.name} in {one.offer.region}: {one.reason}"
    if ranking.notes:
        return "; ".join(ranking.notes)
    return f"nothing is sold by {rule.provider}{where}, as far as is known"


def both(shorts: Sequence[Short], tasks: int) -> Short:
    """What several recruiters of a batch have to say."""
    said = "; ".join(f"recruiter {short.rank}: {short.why}" for short in shorts)
    kinds = [short.kind for short in shorts]
    return Short(shorts[0].batch, shorts[0].rank, tasks, said, min(kinds, key=("patience", "limit", "offers").index))
