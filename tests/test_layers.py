"""Who may import whom. The layers themselves are lint-imports' work (pyproject.toml); here is what it cannot say."""

from __future__ import annotations

import ast
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from scitq import fetch as fetch_package
from scitq.remote.bundle import DATA, TRAVELS, build

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "scitq"
MODULES = sorted(PACKAGE.rglob("*.py"))
AGENT = PACKAGE / "remote" / "agent"
FETCH = PACKAGE / "fetch"
# Of scitq.fetch, what stays on the laptop.
AT_HOME = ("configuration", "remotes")

# Who may import what of the packages that scitq depends on (DESIGN.md §4); prefixes of module names.
ALLOWED = {
    "apsw": ("scitq.store",),
    "cloudpickle": ("scitq.calls", "scitq.runner"),
    "sqlite_utils": ("scitq.store.analysis",),
    "sqlite3": ("scitq.store.analysis",),  # private copies, and the classes of its exceptions; never the live file
    "fabric": ("scitq.remote.ssh", "scitq.remote.sshlink", "scitq.remote.sshlogin"),
    "paramiko": ("scitq.remote.ssh", "scitq.remote.sshlink", "scitq.remote.sshlogin"),
    "boto3": ("scitq.remote.providers.aws",),
    "botocore": ("scitq.remote.providers.aws",),
    "azure": ("scitq.remote.providers.azure",),
    "ovh": ("scitq.remote.providers.ovh",),
    "rclone_python": ("scitq.fetch",),
    "docker": ("scitq.remote.images",),
    "prompt_toolkit": ("scitq.shell", "scitq.workflow"),
    "click": ("scitq.shell", "scitq.fetch"),
    "rich": ("scitq.shell", "scitq.fetch"),
}
# What `import scitq` must not load: it costs more than the whole budget, or endangers the state file (sqlite3).
HEAVY = ("sqlite3", "sqlite_utils", "fabric", "paramiko", "docker", "boto3", "azure", "prompt_toolkit", "click", "rich")


def name_of(module: Path) -> str:
    parts = module.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(module: Path, *, types_too: bool = True) -> Iterator[tuple[int, str]]:
    """Every module that this one imports, wherever in it, with the line; relative ones by their full name."""
    package = name_of(module) if module.name == "__init__.py" else name_of(module).rpartition(".")[0]
    queue: list[ast.AST] = [ast.parse(module.read_text(encoding="utf-8"))]
    while queue:
        node = queue.pop()
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test) and not types_too:
            queue.extend(node.orelse)
            continue
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            source = ".".join([*above, *([node.module] if node.module else [])])
            for alias in node.names:
                # `from scitq import submission` names a module, not something that the package's root defines.
                inner = ROOT.joinpath(*source.split("."), alias.name)
                is_module = inner.with_suffix(".py").is_file() or inner.is_dir()
                yield node.lineno, f"{source}.{alias.name}" if is_module else source
        queue.extend(ast.iter_child_nodes(node))


def test_what_travels_to_a_worker_imports_the_standard_library_itself_and_what_moves_data() -> None:
    ours = ("scitq.remote.agent.", "scitq.errors.", *(f"scitq.fetch.{name}." for name in fetch_package.TRAVELS))
    strangers = [
        f"{module.relative_to(ROOT)}:{line}: {name}"
        for module in sorted(AGENT.rglob("*.py"))
        for line, name in imports(module)
        if name.split(".")[0] not in sys.stdlib_module_names and not f"{name}.".startswith(ours)
    ]

    assert strangers == []


def test_what_travels_of_fetch_imports_the_standard_library_itself_and_the_errors() -> None:
    ours = ("scitq.fetch.", "scitq.errors.")
    strangers = [
        f"{module}.py:{line}: {name}"
        for module in fetch_package.TRAVELS
        for line, name in imports(FETCH / f"{module}.py")
        if (name.split(".")[0] not in sys.stdlib_module_names and not f"{name}.".startswith(ours))
        or name in [f"scitq.fetch.{home}" for home in AT_HOME]
    ]

    assert strangers == []
    assert sorted([*fetch_package.TRAVELS, *AT_HOME]) == sorted(path.stem for path in FETCH.glob("*.py"))
    assert {name for _, name in imports(PACKAGE / "errors.py")} <= {"__future__", "typing"}


def test_what_travels_of_fetch_loads_with_the_oldest_python_here(tmp_path: Path) -> None:
    for name in ("__init__.py", "errors.py"):
        (tmp_path / "scitq").mkdir(exist_ok=True)
        (tmp_path / "scitq" / name).write_bytes(b"" if name.startswith("_") else (PACKAGE / name).read_bytes())
    (tmp_path / "scitq" / "fetch").mkdir()
    for name in fetch_package.TRAVELS:
        shutil.copy(FETCH / f"{name}.py", tmp_path / "scitq" / "fetch")
    code = (
        f"import importlib, sys; sys.path.insert(0, {str(tmp_path)!r})\n"
        f"for name in {[n for n in fetch_package.TRAVELS if n != '__init__']!r}:\n"
        "    importlib.import_module('scitq.fetch.' + name)\n"
        f"from scitq import fetch; open({str(tmp_path / 'x')!r}, 'w').write('x')\n"
        f"fetch.get({str(tmp_path / 'x')!r} + '|mv:sub', {str(tmp_path / 'out')!r}); print(sys.version)"
    )

    ended = run_python(python_3_10() or sys.executable, code, "-I", "-B")

    print("scitq.fetch loads with Python", ended.stdout.strip())
    assert ended.returncode == 0, ended.stderr
    assert (tmp_path / "out/sub/x").read_text() == "x"


def test_nobody_takes_names_from_the_package_root() -> None:
    takers = [
        f"{module.relative_to(ROOT)}:{line}"
        for module in MODULES
        for line, name in imports(module)
        if name == "scitq" and module != PACKAGE / "__init__.py"
    ]

    assert takers == []


def test_each_dependency_is_imported_only_where_it_belongs() -> None:
    strangers = [
        f"{module.relative_to(ROOT)}:{line}: {name}"
        for module in MODULES
        for line, name in imports(module, types_too=False)
        if name.split(".")[0] in ALLOWED
        and not f"{name_of(module)}.".startswith(tuple(f"{home}." for home in ALLOWED[name.split(".")[0]]))
    ]

    assert strangers == []


def test_every_module_says_what_lives_in_it() -> None:
    silent = [str(m.relative_to(ROOT)) for m in MODULES if not ast.get_docstring(ast.parse(m.read_text("utf-8")))]

    assert silent == []


def test_import_scitq_loads_nothing_heavy() -> None:
    code = (
        "import sys, time; begin = time.perf_counter(); import scitq; taken = time.perf_counter() - begin\n"
        f"print([name for name in {HEAVY!r} if name in sys.modules])\n"
        "print(f'import scitq: {taken * 1000:.1f} ms, {len(sys.modules)} modules', file=sys.stderr)"
    )
    ended = run_python(sys.executable, code)

    print(ended.stderr.strip())
    assert (ended.stdout.strip(), ended.returncode) == ("[]", 0), ended.stderr


def test_every_module_of_the_agent_travels() -> None:
    assert sorted(TRAVELS) == [str(module.relative_to(ROOT)) for module in sorted(AGENT.rglob("*.py"))]


def test_what_travels_loads_with_the_oldest_python_here(tmp_path: Path) -> None:
    """The type checker and the linter prove 3.10; a real 3.10 is asked too where there is one."""
    bundle = tmp_path / "agent.pyz"
    bundle.write_bytes(build())
    names = [name.removesuffix(".py").replace("/", ".").removesuffix(".__init__") for name in (*TRAVELS, *DATA)]
    code = (
        f"import importlib, sys; sys.path.insert(0, {str(bundle)!r})\n"
        f"for name in {names!r}:\n"
        f"    assert importlib.import_module(name).__file__.startswith({str(bundle)!r})\n"
        "print(sys.version)"
    )

    ended = run_python(python_3_10() or sys.executable, code, "-I")

    print("the agent loads with Python", ended.stdout.strip())
    assert ended.returncode == 0, ended.stderr


def python_3_10() -> str | None:
    """A Python 3.10 on PATH that runs; where that is only a version manager's stub, the one the stub stands for."""
    stub = shutil.which("python3.10")
    if stub is None:
        return None
    behind = sorted(map(str, Path(stub).parent.parent.glob("versions/3.10.*/bin/python3.10")))
    return next((python for python in (stub, *behind) if run_python(python, "").returncode == 0), None)


def run_python(python: str, code: str, *options: str) -> subprocess.CompletedProcess[str]:
    environ = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "error"}
    return subprocess.run([python, *options, "-c", code], capture_output=True, text=True, env=environ)
