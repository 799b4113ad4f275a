"""Who may talk to the page, and what it says to everybody else."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from scitq.engine import Engine
from scitq.shell import web
from tests.shell.web.conftest import Site

pytestmark = pytest.mark.servers


def fill(path: Path) -> None:
    """Two tasks."""
    with Engine(path, drive=False) as engine:
        engine.submit("true", name="alpha-task")
        engine.submit("true", name="two")


@pytest.fixture(scope="module")
def site(make_site: Callable[[Callable[[Path], None]], Site]) -> Iterator[Site]:
    """The module's."""
    found = make_site(fill)
    yield found
    found.close_pages()


def csrf(site: Site) -> str:
    """What this browser's forms carry."""
    found = re.search(r'name="csrf" value="([^"]+)"', site.request("GET", "/tasks", Cookie=site.cookie)[2])
    assert found is not None
    return found.group(1)


def test_nobody_comes_in_without_the_link(site: Site) -> None:
    for path in ("/", "/tasks", "/live?topics=tasks", "/workers", "/batches"):
        code, _, text = site.request("GET", path)
        assert code == 401 and "scitq web" in text and "lab.scitq" not in text and "alpha" not in text
    assert site.request("GET", "/", Cookie=f"scitq-{site.told['port']}=guess")[0] == 401
    assert site.request("POST", "/tasks/choose", "id=1", Content_Type="application/x-www-form-urlencoded",
                        Origin=site.base)[0] == 401  # fmt: skip


def test_a_link_lets_one_browser_in(site: Site) -> None:
    assert site.page("/").title().endswith("lab.scitq")

    code, headers, _ = site.request("GET", site.link.removeprefix(site.base))

    assert code == 401 and "set-cookie" not in headers
    assert site.request("GET", "/enter?token=")[0] == 401


def test_the_session_is_of_no_use_to_scripts_and_other_sites(site: Site) -> None:
    [cookie] = site._entered()["cookies"]
    assert cookie["httpOnly"] and cookie["sameSite"] == "Strict"
    assert str(site.told["port"]) in cookie["name"]


def test_what_the_file_holds_is_no_secret_of_the_page(site: Site) -> None:
    site.page("/")
    value = site.cookie.partition("=")[2]
    token = site.link.partition("token=")[2]
    for secret in (value, token):  # by another process: this one has the file open
        found = subprocess.run(
            ["grep", "-rlF", "--devices=skip", "--", secret, str(site.path.parent)], capture_output=True
        )
        assert (found.returncode, found.stdout) == (1, b"")


def test_every_answer_says_what_browsers_may_do_with_it(site: Site) -> None:
    for path, cookie in (("/tasks", site.cookie), ("/nothing", site.cookie), ("/", ""), ("/static/page.js", "")):
        headers = site.request("GET", path, Cookie=cookie)[1]
        policy = headers["content-security-policy"]
        assert "default-src 'none'" in policy and "frame-ancestors 'none'" in policy and "unsafe" not in policy
        assert headers["x-content-type-options"] == "nosniff" and headers["referrer-policy"] == "no-referrer"
        assert headers["cross-origin-opener-policy"] == headers["cross-origin-resource-policy"] == "same-origin"
        assert path.startswith("/static/") or headers["cache-control"] == "no-store"
        assert "server" not in headers


def test_other_names_for_this_machine_are_refused(site: Site) -> None:
    """A site whose name is made to lead here (DNS rebinding) is that site for the browser."""
    port = site.told["port"]
    for host in (f"evil.example:{port}", "127.0.0.1", "127.0.0.1:1", f"localhost.evil.example:{port}", f"[::1]:{port}"):
        assert site.request("GET", "/tasks", Cookie=site.cookie, Host=host)[0] == 421
    assert site.request("GET", "/tasks", Cookie=site.cookie, Host=f"localhost:{port}")[0] == 200


def test_other_sites_are_refused(site: Site) -> None:
    own = {"Cookie": site.cookie}
    for more in ({"Sec_Fetch_Site": "cross-site", "Sec_Fetch_Mode": "cors"}, {"Sec_Fetch_Site": "same-site", "Sec_Fetch_Mode": "no-cors"},
                 {"Origin": "http://evil.example"}, {"Origin": f"http://127.0.0.1:{site.told['port'] + 1}"}):  # fmt: skip
        assert site.request("GET", "/tasks", **own, **more)[0] == 403
    link = {"Sec_Fetch_Site": "cross-site", "Sec_Fetch_Mode": "navigate", "Sec_Fetch_Dest": "document"}
    assert site.request("GET", "/tasks", **own, **link)[0] == 200


def test_forms_of_other_pages_are_refused(site: Site) -> None:
    token = csrf(site)
    form = {"Cookie": site.cookie, "Content_Type": "application/x-www-form-urlencoded"}
    good = f"csrf={token}&id=1"
    for body, more in (
        (good, {}), (good, {"Origin": "http://evil.example"}), (good, {"Origin": "null"}),
        (good, {"Origin": site.base, "Sec_Fetch_Site": "same-site"}), (good, {"Origin": "null", "Sec_Fetch_Site": "cross-site"}),
        ("id=1", {"Origin": site.base}), ("csrf=x&id=1", {"Origin": site.base}), ("csrf=&id=1", {"Origin": site.base}),
    ):  # fmt: skip
        assert site.request("POST", "/tasks/choose", body, **form, **more)[0] == 403, (body, more)
    json = {**form, "Content_Type": "application/json"}
    assert site.request("POST", "/tasks/choose", good, **json, Origin=site.base)[0] == 415
    assert site.request("DELETE", "/tasks", Cookie=site.cookie)[0] == 405
    assert {row.state.word for row in site.engine.rows()} == {"pending"}


def test_forms_are_small(site: Site) -> None:
    form = {"Cookie": site.cookie, "Content_Type": "application/x-www-form-urlencoded", "Origin": site.base}
    assert site.request("POST", "/tasks/choose", "a=" + "x" * (1 << 20), **form)[0] == 413
    assert site.request("POST", "/tasks/choose", f"csrf={csrf(site)}" + "&id=1" * 20_001, **form)[0] == 400


def test_no_template_passes_text_as_markup() -> None:
    folder = Path(web.__file__).parent
    for file in [*folder.rglob("*.html"), *folder.rglob("*.py")]:
        text = file.read_text()
        assert "|safe" not in text.replace(" ", "") and "autoescapefalse" not in text.replace(" ", ""), file
        assert file.suffix == ".py" or not re.search(r"<(script|style)(?![^>]*\bsrc=)[ >]|\sstyle=|\son\w+=", text), (
            file
        )
    # Where Python makes markup for templates: one function that takes only what our own functions made, and the escaping one.
    assert (folder / "page.py").read_text().count("markupsafe.Markup(") == 2
    assert not any("Markup(" in file.read_text() for file in (folder / "pages").glob("*.py"))
