"""The manual: what it shows works, and it leaves out no key, route, error code, preset or public name.

A code block's first line says what it is: ```toml``` is loaded when it holds tables of a configuration;
`toml refused` must be refused with the text of the block after it (`gate`: only once a gate is made);
`python` is compiled, `python run` is run, one page's blocks after one another; `python pytest` is run
by pytest, beside the document's other blocks that begin with a file's name.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
import tomllib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from inspect import signature
from pathlib import Path
from typing import Any, NamedTuple

import httpx2
import msgspec
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from werkzeug.serving import make_server

import oauthgate
import oauthgate.testing
from oauthgate import references, telemetry
from oauthgate.config import Config, GateTable, HooksTable, SessionTable
from oauthgate.config_access import AccessTable
from oauthgate.config_providers import preset_names, read_preset
from oauthgate.errors import STATUS, ConfigError
from oauthgate.providers import (
    CarryField,
    Provider,
    Revocation,
    SignedSecret,
    TokenInfo,
    placeholders_in,
)
from oauthgate.router import PROVIDER_ROUTES, ROUTES
from oauthgate.testing import LocalProvider, serve, sign_in

from .servers import free_port
from .support import PAGE

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
PAGES = [path for path in sorted([*ROOT.glob("*.md"), *DOCS.glob("*.md")]) if path.is_file()]
#: The tables of a configuration file.
TABLES = {"oauthgate", "session", "access", "hooks", "providers"}
#: A value for any reference: long enough for a secret, plain enough for a name.
ANY_VALUE = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFG"
#: A private key as a file of a provider's would hold it: a real one, because it is tried at start.
SIGNING_KEY = (
    ec.generate_private_key(ec.SECP256R1())
    .private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    .decode()
)
#: What `"oauthgate.toml"` is in the blocks that are run.
CONFIGURATION = '[oauthgate]\nbase_url = "http://localhost:8000"\nstore = "memory:"\n' + "\n".join(
    f'[providers.{name}]\nclient_id = "id"\nclient_secret = "secret"\n'
    for name in ("github", "google", "spotify", "twitter")
)


class Block(NamedTuple):
    """A fenced code block: where it stands, its language, the word after that, and its text."""

    page: Path
    line: int
    language: str
    word: str
    text: str

    @property
    def file(self) -> str | None:
        """The file's name, when the block begins with one."""
        match = re.match(r"# (\S+\.(?:py|toml))\b", self.text)
        return match[1] if match else None


def blocks(page: Path) -> list[Block]:
    text = page.read_text(encoding="utf-8")
    found = re.finditer(r"^```(\w*) ?([^\n]*)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    return [
        Block(page, text.count("\n", 0, match.start()) + 1, match[1], match[2], match[3])
        for match in found
    ]


EVERY = [block for page in PAGES for block in blocks(page)]


def chosen(want: Callable[[Block], bool]) -> list[Any]:
    return [pytest.param(block, id=f"{block.page.name}:{block.line}") for block in EVERY if want(block)]


def prose(page: Path) -> str:
    """A page without its code."""
    text = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    return re.sub(r"`[^`\n]*`", "", text)


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    text = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def rows(page: Path, heading: str) -> list[list[str]]:
    """The cells of the first table below a heading, without its head; `|` in code is not a border."""
    text = page.read_text(encoding="utf-8")
    start = re.search(rf"^#+ {re.escape(heading)}$", text, re.MULTILINE)
    assert start, f"{page.name} has no heading {heading!r}"
    table = re.search(r"(?:^\|.*\n)+", text[start.end() :], re.MULTILINE)
    assert table, f"{page.name} has no table below {heading!r}"
    lines = table[0].strip().split("\n")[2:]
    return [[cell.strip() for cell in re.split(r" \|(?= )", line.strip("|"))] for line in lines]


def code(cell: str) -> str:
    """The first code span of a cell, or nothing."""
    match = re.search(r"`([^`]*)`", cell)
    return match[1] if match else ""


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links(page: Path) -> None:
    """Every relative link leads to a file that is there, and to a heading that is there."""
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
        if re.match(r"[a-z]+:", target):
            continue
        name, _, anchor = target.partition("#")
        found = (page.parent / name).resolve() if name else page
        # The tests also run beside the built package, in a tree with a part of the checkout only.
        top = ROOT / found.relative_to(ROOT).parts[0] if found != ROOT else ROOT
        if not (ROOT / "src").is_dir() and not top.exists():
            continue
        assert found.exists(), f"{page.name}: {target}"
        if anchor and found.suffix == ".md":
            assert anchor in anchors(found), f"{page.name}: {target}"


def test_every_page_is_in_the_index() -> None:
    """docs/README.md names every page of the manual."""
    index = (DOCS / "README.md").read_text(encoding="utf-8")
    assert [page.name for page in DOCS.glob("*.md") if f"({page.name})" not in index] == ["README.md"]


@pytest.fixture
def resolved(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every reference has a value."""
    for kind in ("env", "file", "ssm"):
        monkeypatch.setitem(
            references._RESOLVERS,
            kind,
            lambda name, where, base: SIGNING_KEY if name.endswith((".p8", ".pem")) else ANY_VALUE,
        )


@pytest.mark.parametrize(
    "block", chosen(lambda b: b.language == "toml" and not b.word.startswith("refused"))
)
@pytest.mark.usefixtures("resolved")
def test_toml(block: Block, tmp_path: Path) -> None:
    """TOML is TOML, and a configuration is one."""
    if TABLES & set(tomllib.loads(block.text)):
        path = tmp_path / "oauthgate.toml"
        path.write_text(block.text, encoding="utf-8")
        Config.load(path)


@pytest.mark.parametrize(
    "block", chosen(lambda b: b.language == "toml" and b.word.startswith("refused"))
)
def test_refusals(block: Block, tmp_path: Path) -> None:
    """A refusal is the one that the manual shows."""
    path = tmp_path / "oauthgate.toml"
    path.write_text(block.text, encoding="utf-8")
    expected = EVERY[EVERY.index(block) + 1]
    with pytest.raises(ConfigError) as refusal:
        config = Config.load(path)
        if block.word.endswith("gate"):
            oauthgate.WSGIGate(lambda environ, start_response: [], config)
    message = str(refusal.value).replace(f"{tmp_path}{os.sep}", "")
    assert (expected.language, expected.text.strip()) == ("text", message)


@pytest.mark.parametrize("block", chosen(lambda b: b.language == "json"))
def test_json(block: Block) -> None:
    """JSON is JSON."""
    json.loads(block.text)


@pytest.mark.parametrize("block", chosen(lambda b: b.language == "python"))
def test_python_compiles(block: Block) -> None:
    """Python is Python."""
    compile(block.text, f"{block.page.name}:{block.line}", "exec")


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder with an `oauthgate.toml`, which is the current one."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "oauthgate.toml").write_text(CONFIGURATION, encoding="utf-8")
    return tmp_path


def pages_with(word: str) -> list[Any]:
    found = dict.fromkeys(b.page for b in EVERY if (b.language, b.word) == ("python", word))
    return [pytest.param(page, id=page.name) for page in found]


@pytest.mark.parametrize("page", pages_with("run"))
@pytest.mark.usefixtures("workplace")
def test_python_runs(page: Path) -> None:
    """A page's blocks that are marked so run, one after the other."""
    namespace: dict[str, Any] = {"__name__": "manual"}
    for block in blocks(page):
        if (block.language, block.word) == ("python", "run"):
            exec(compile(block.text, f"{page.name}:{block.line}", "exec"), namespace)


@pytest.mark.parametrize("page", pages_with("pytest"))
def test_python_tests(page: Path, workplace: Path) -> None:
    """The tests that a page shows pass."""
    for block in blocks(page):
        if block.language == "python" and block.file:
            (workplace / block.file).write_text(block.text, encoding="utf-8")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-W", "error", "."]
    done = subprocess.run(command, cwd=workplace, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_store_takes_less_than_100_lines() -> None:
    """The store that the manual shows has under 100 lines that are not blank."""
    store = next(block for block in EVERY if block.file == "file_store.py")
    assert len([line for line in store.text.splitlines() if line.strip()]) < 100


# -- nothing is left out


def shown_default(value: object) -> str:
    """A default as the tables write it."""
    if value is None:
        return "none given"
    if isinstance(value, msgspec.Struct):
        return "{}"
    return json.dumps(value)


def fields_of(kind: type[msgspec.Struct]) -> dict[str, str]:
    """The keys of a table's struct, each with its default; empty where there is none."""
    found = {}
    for item in msgspec.structs.fields(kind):
        default: Any = "" if item.default is msgspec.NODEFAULT else shown_default(item.default)
        if item.default_factory is not msgspec.NODEFAULT:
            default = shown_default(item.default_factory())
        found[item.name] = default
    return found


@pytest.mark.parametrize(
    ("heading", "kind"),
    [
        ("`[oauthgate]`", GateTable),
        ("`[session]`", SessionTable),
        ("`[access]`", AccessTable),
        ("`[hooks]`", HooksTable),
    ],
)
def test_configuration_keys(heading: str, kind: type[msgspec.Struct]) -> None:
    """docs/configuration.md has every key of every table with its default, and no other."""
    shown = {code(row[0]): code(row[2]) for row in rows(DOCS / "configuration.md", heading)}
    assert shown == fields_of(kind)


PROVIDER_TABLES = [
    "Kind and client",
    "The authorization server",
    "Requests",
    "Answers",
    "The API",
    "The account",
    "The hand-over",
]
#: Computed where neither the table nor a preset says it, so its row has no default.
COMPUTED = {"protocol": "", "title": "", "client_id": ""}


def key_rows(kind: type[msgspec.Struct]) -> list[list[str]]:
    page = DOCS / "providers.md"
    if kind is Provider:
        return [row for heading in PROVIDER_TABLES for row in rows(page, heading)]
    headings: dict[type[msgspec.Struct], str] = {
        SignedSecret: "A client secret that is signed",
        Revocation: "Revocation",
        CarryField: "Carry",
        TokenInfo: "Token information",
    }
    return rows(page, headings[kind])


@pytest.mark.parametrize("kind", [Provider, SignedSecret, Revocation, CarryField, TokenInfo])
def test_provider_keys(kind: type[msgspec.Struct]) -> None:
    """docs/providers.md has every key of a provider's tables with its default, and no other."""
    expected = fields_of(kind)
    if kind is Provider:
        del expected["name"], expected["placeholders"], expected["questions"]
        expected |= COMPUTED
    shown = [(code(row[0]), code(row[1])) for row in key_rows(kind)]
    assert len(shown) == len(dict(shown))
    assert dict(shown) == expected


@pytest.mark.parametrize("kind", [Provider, SignedSecret, Revocation, CarryField, TokenInfo])
def test_provider_examples(kind: type[msgspec.Struct]) -> None:
    """The example of each key is TOML of that key, with a value of its type."""
    types = {item.name: item.type for item in msgspec.structs.fields(kind)}
    for row in key_rows(kind):
        key, example = code(row[0]), tomllib.loads(code(row[3]))
        assert list(example) == [key]
        msgspec.convert(example[key], types[key])


def test_presets() -> None:
    """Every preset has its row: protocol, and what it needs."""
    shown = {code(row[0]): row for row in rows(DOCS / "providers.md", "Presets")}
    assert sorted(shown) == preset_names()
    for name, row in shown.items():
        preset = read_preset(name)
        # What only a hand-over needs is no need of a sign-in.
        needs = set(preset.get("placeholders", [])) - {*placeholders_in(str(preset.get("token_info")))}
        if "client_secret_jwt" in preset:
            needs |= {"private_key", "private_key_id"}
        elif preset["protocol"] == "oauth1" or "token_endpoint_auth_method" in preset:
            needs.add("client_secret")
        assert code(row[1]) == preset["protocol"], name
        assert set(re.findall(r"`(\w+)`", row[2])) == needs, name
        # What the row says is enough, and all of it is necessary.
        table = {"client_id": "id", **dict.fromkeys(needs, "value")}
        if "private_key" in needs:
            table["private_key"] = SIGNING_KEY
        Config.load({"providers": {name: table}})
        for key in needs - {"private_key_id"}:
            less = {other: value for other, value in table.items() if other != key}
            with pytest.raises(ConfigError, match=key):
                Config.load({"providers": {name: less}})


def test_routes() -> None:
    """docs/routes.md has every route with its methods, and no other."""
    shown = {code(row[0]): set(row[1].split(", ")) for row in rows(DOCS / "routes.md", "Routes")}
    expected = {path: set(methods) for path, methods in ROUTES.items()}
    expected |= {f"/{{provider}}/{path}": set(methods) for path, methods in PROVIDER_ROUTES.items()}
    assert shown == expected


def test_errors() -> None:
    """docs/routes.md has every error code with its status, and no other."""
    shown = {code(row[0]): int(row[1]) for row in rows(DOCS / "routes.md", "Errors")}
    assert shown == STATUS


def test_exceptions() -> None:
    """docs/handlers.md has every exception that the package exports."""
    shown = {code(row[0]) for row in rows(DOCS / "handlers.md", "Exceptions")}
    kinds = [getattr(oauthgate, name) for name in oauthgate.__all__]
    names = {kind.__name__ for kind in kinds if isinstance(kind, type) and issubclass(kind, Exception)}
    assert shown == names - {"OAuthGateError"}


def test_public_names() -> None:
    """Every public name stands somewhere in the manual; those of `oauthgate.testing` in its page."""
    manual = "".join(page.read_text(encoding="utf-8") for page in DOCS.glob("*.md"))
    names = [name for name in oauthgate.__all__ if not name.startswith("_")]
    assert [name for name in names if not re.search(rf"\b{name}\b", manual)] == []
    testing = (DOCS / "testing.md").read_text(encoding="utf-8")
    names = oauthgate.testing.__all__
    assert [name for name in names if not re.search(rf"`{name}\b", testing)] == []


def test_settings_of_the_local_provider() -> None:
    """docs/testing.md has every setting of the local provider, and no other."""
    shown = [code(row[0]) for row in rows(DOCS / "testing.md", "Settings")]
    assert sorted(shown) == sorted(signature(LocalProvider).parameters)


def test_counters_and_extras() -> None:
    """docs/deployment.md has every counter, docs/dependencies.md every dependency."""
    shown = {code(row[0]) for row in rows(DOCS / "deployment.md", "What to watch")}
    assert shown == set(telemetry.COUNTERS)
    document = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    project = document["project"]
    page = DOCS / "dependencies.md"
    packages = {re.split(r"[<>=\[]", text)[0].lower() for text in project["dependencies"]}
    assert {code(row[0]).lower() for row in rows(page, "Always")} == packages
    assert {code(row[0]) for row in rows(page, "Extras")} == set(project["optional-dependencies"])
    used = {
        name
        for group in document["dependency-groups"].values()
        for name in group
        if isinstance(name, str)
    }
    text = page.read_text(encoding="utf-8")
    names = [re.split(r"[<>=\[]", name)[0] for name in used]
    missing = [name for name in names if not re.search(rf"\b{name}\b", text)]
    assert missing == []


def test_make_targets() -> None:
    """Every `make` that a page names is a target of the Makefile."""
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M))
    for page in PAGES:
        named = set(re.findall(r"`(?:[A-Z_0-9=]+ )?make ([a-z]+)", page.read_text(encoding="utf-8")))
        assert named <= targets, page.name


def test_rules_of_openid_connect() -> None:
    """The functions that docs/security.md names for the ID token's rules are there."""
    from oauthgate.protocols import oidc

    text = (DOCS / "security.md").read_text(encoding="utf-8").partition("## OpenID Connect Core")[2]
    names = set(re.findall(r"^\|[^|]*\| `(\w+)`", text, re.MULTILINE))
    assert len(names) >= 8 and [name for name in names if not hasattr(oidc, name)] == []


# -- getting started, as it is written


@contextmanager
def served(app: Any, port: int) -> Iterator[None]:
    if not hasattr(app, "wsgi_app"):
        with serve(app, port=port):
            yield
        return
    server = make_server("127.0.0.1", port, app, threaded=True)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
        app.wsgi_app.close()


@pytest.mark.parametrize("app_file", ["app.py", "app_flask.py"])
def test_getting_started(app_file: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The files of docs/getting-started.md make a site with two linked services, step by step."""
    ports = {"8000": str(free_port()), "9000": str(free_port())}
    files = {}
    for block in blocks(DOCS / "getting-started.md"):
        if block.file:
            files[block.file] = re.sub(r"\b(8000|9000)\b", lambda match: ports[match[0]], block.text)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "oauthgate.toml").write_text(files["oauthgate.toml"], encoding="utf-8")
    spaces: dict[str, dict[str, Any]] = {}
    for name in ("provider.py", app_file):
        spaces[name] = {"__name__": name.removesuffix(".py")}
        exec(compile(files[name], name, "exec"), spaces[name])
    base = f"http://localhost:{ports['8000']}"
    with (
        serve(spaces["provider.py"]["provider"], port=int(ports["9000"])),
        served(spaces[app_file]["app"], int(ports["8000"])),
        httpx2.Client(base_url=base) as browser,
        httpx2.Client() as person,
    ):
        assert browser.get("/").json()["user"] is None
        refused = browser.get("/now")
        assert refused.status_code == 401
        documented = next(b for b in blocks(DOCS / "getting-started.md") if b.language == "json")
        shown = {**json.loads(documented.text), "url": f"{base}/_oauth/chat/link?next=%2Fnow"}
        assert shown.items() - {("...", "...")} <= refused.json().items()
        # 1. Sign in with Chat: the page's one button is a link.
        page = browser.get(browser.get("/now", headers=PAGE).headers["location"], headers=PAGE)
        assert "Sign in with Chat" in page.text
        button = re.search(r'class="button primary" href="([^"]+)"', page.text)
        assert button
        started = browser.get(button[1].replace("&amp;", "&"), headers=PAGE)
        back = browser.get(str(sign_in(person, started.headers["location"], "ada")), headers=PAGE)
        assert back.headers["location"] == f"{base}/now"
        # 2. Link Music: the button is a form of the page.
        page = browser.get(browser.get("/now", headers=PAGE).headers["location"], headers=PAGE)
        assert "Link Music" in page.text
        fields = dict(re.findall(r'<input type="hidden" name="(\w+)" value="([^"]*)"', page.text))
        started = browser.post("/_oauth/music/link", data=fields, headers={**PAGE, "origin": base})
        back = browser.get(str(sign_in(person, started.headers["location"], "ada")), headers=PAGE)
        # 3. The handler runs to its end.
        assert browser.get(back.headers["location"]).json()["name"] == "Ada Lovelace"
        assert (tmp_path / "oauthgate.db.key").exists()
