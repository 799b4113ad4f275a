"""What is downloaded: the header that names the file, whatever signs its name has."""

from __future__ import annotations

from urllib.parse import quote

from scitq.shell.web.zip import safe


def attached(name: str) -> dict[str, str]:
    """The header that has a browser save what it gets, under a name that is safe everywhere."""
    kept = safe(name) if len(name) <= 80 else f"{safe(name[:70])}{name[name.rindex('.') :] if '.' in name[-8:] else ''}"
    plain = kept.encode("ascii", "replace").decode().replace("?", "_")
    return {"content-disposition": f"attachment; filename=\"{plain}\"; filename*=UTF-8''{quote(kept, safe='')}"}
