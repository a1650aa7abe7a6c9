"""A PostgreSQL cluster of our own, and a PgBouncer in front of it, for as long as a test runs.

Owns: finding the programs (Debian keeps them off the PATH), making a cluster in a temporary folder,
starting, freezing and stopping it. PostgreSQL refuses to run as root, so a test run as root gives it
to another user. The servers end with the test process: a shell waits for the end of its input and
then tells its child to stop.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Generator
from pathlib import Path
from urllib.parse import quote

import psycopg

from .processes import Missing, ServerFailed, free_port

START_DEADLINE = 30.0
"""Seconds until the server must answer; making a cluster takes one or two."""
USER = "gate"
#: With everything that a URL must escape.
PASSWORD = "correct horse/battery:staple@%41"
#: Ends the server, by the signal of the first argument, when our end of its input closes.
_WITH_US = (
    "how=$1; shift; exec 3<&0; "
    '"$@" </dev/null & server=$!; cat <&3 >/dev/null; kill -$how $server; wait $server'
)
#: Nothing here outlives a test run, so nothing has to reach the disk.
_SETTINGS = {
    "fsync": "off",
    "full_page_writes": "off",
    "synchronous_commit": "off",
    "max_connections": "100",
    "shared_buffers": "32MB",
    "max_wal_size": "256MB",
    "log_statement": "all",
    "log_line_prefix": "%p %a ",
}


def _program(name: str, package: str) -> str:
    """Where a program is; the newest of several PostgreSQLs."""
    debian = sorted(
        Path("/usr/lib/postgresql").glob(f"*/bin/{name}"), key=lambda path: _number(path.parts[-3])
    )
    found = str(debian[-1]) if debian else shutil.which(name) or shutil.which(name, path="/usr/sbin")
    if found is None:
        raise Missing(f"{name} is not installed: apt-get install {package}")
    return found


def _number(text: str) -> int:
    return int(text) if text.isdigit() else 0


def _other_user() -> pwd.struct_passwd | None:
    """Who runs the servers when we are root."""
    if os.geteuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        with contextlib.suppress(KeyError):
            return pwd.getpwnam(name)
    raise Missing("PostgreSQL does not run as root: run the tests as another user")


class _Process:
    """A server process that can be stopped, frozen and started again on the same port."""

    #: The signal that ends it at once, whoever is connected.
    end = "INT"

    def __init__(self, folder: Path, port: int, name: str) -> None:
        self.folder = folder
        self.port = port
        self.name = name
        self.log = folder / f"{name}.log"
        self._shell: subprocess.Popen[bytes] | None = None
        user = _other_user()
        self._uid = user.pw_uid if user else None
        self._gid = user.pw_gid if user else None
        self._groups: list[str | int] | None = [] if user else None

    def command(self) -> list[str]:
        raise NotImplementedError  # PostgreSQL and PgBouncer each have their own

    def pid(self) -> int:
        raise NotImplementedError  # as above

    def run(self, *command: str) -> None:
        """Run a program to its end as the server's user."""
        done = subprocess.run(
            command,
            cwd=self.folder,
            env={**os.environ, "LC_ALL": "C"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            user=self._uid,
            group=self._gid,
            extra_groups=self._groups,
        )
        if done.returncode != 0:
            raise ServerFailed(f"{command[0]} ended with {done.returncode}:\n{done.stdout[-4000:]}")

    def start(self) -> None:
        """Start, and wait until the port is open."""
        with self.log.open("ab") as log:
            self._shell = subprocess.Popen(
                ["sh", "-c", _WITH_US, "sh", self.end, *self.command()],
                cwd=self.folder,
                env={**os.environ, "LC_ALL": "C"},
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                user=self._uid,
                group=self._gid,
                extra_groups=self._groups,
            )
        deadline = time.monotonic() + START_DEADLINE
        while not self.answers():
            if time.monotonic() > deadline:
                self.stop()
                raise ServerFailed(f"{self.name} did not answer; it said:\n{self.said()[-4000:]}")
            time.sleep(0.02)

    def answers(self) -> bool:
        """Whether somebody could connect."""
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    def stop(self) -> None:
        """End it, with every connection; harmless when it has ended."""
        if self._shell is None:
            return
        with contextlib.suppress(OSError, ValueError):
            self._signal(signal.SIGCONT)
        assert self._shell.stdin is not None
        self._shell.stdin.close()
        try:
            self._shell.wait(10)
        except subprocess.TimeoutExpired:
            with contextlib.suppress(OSError, ValueError):
                self._signal(signal.SIGKILL)
            self._shell.kill()
            self._shell.wait()
        self._shell = None

    @contextlib.contextmanager
    def frozen(self) -> Generator[None]:
        """The server is there and does nothing, as in a stalled machine."""
        self._signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self._signal(signal.SIGCONT)

    @property
    def owner(self) -> tuple[int, int] | None:
        """The user and group that it runs as, where they are not ours."""
        return None if self._uid is None or self._gid is None else (self._uid, self._gid)

    def children(self) -> list[int]:
        """The processes that it has made: with PostgreSQL, one for each connection, and its own."""
        parent = self.pid()
        listed = subprocess.run(["ps", "-axo", "pid=,ppid="], capture_output=True, text=True, check=True)
        pairs = (map(int, line.split()) for line in listed.stdout.splitlines())
        return [child for child, of in pairs if of == parent]

    def _signal(self, number: signal.Signals) -> None:
        # The parent first, so that it makes no child that would be missed.
        os.kill(self.pid(), number)
        for child in self.children():
            with contextlib.suppress(ProcessLookupError):
                os.kill(child, number)

    def said(self) -> str:
        """What it printed: with PostgreSQL, every statement it was sent."""
        return self.log.read_text(encoding="utf-8", errors="replace") if self.log.exists() else ""


class Postgres(_Process):
    """One cluster with one database, `gate`, owned by a role that is no superuser."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, free_port(), "postgres")
        self._data = folder / "data"
        self.run(
            *(
                _program("initdb", "postgresql"),
                "-D",
                str(self._data),
                "-U",
                "admin",
                "-A",
                "scram-sha-256",
            ),
            *("-E", "UTF8", "--locale=C", "--no-sync", "--pwfile", self._password_file()),
        )
        with (self._data / "postgresql.conf").open("a", encoding="utf-8") as file:
            for name, value in _SETTINGS.items():
                file.write(f"{name} = '{value}'\n")
        # The administrator of the tests comes by the socket, the store under test as from elsewhere.
        (self._data / "pg_hba.conf").write_text(
            "local all admin trust\n"
            "local all all scram-sha-256\n"
            "host all all 127.0.0.1/32 scram-sha-256\n",
            encoding="utf-8",
        )

    def _password_file(self) -> str:
        path = self.folder / "password"
        path.write_text("for the administrator, who comes by the socket only", encoding="utf-8")
        path.chmod(0o644)
        return str(path)

    def command(self) -> list[str]:
        return [
            *(_program("postgres", "postgresql"), "-D", str(self._data), "-p", str(self.port)),
            *("-c", "listen_addresses=127.0.0.1", "-k", str(self.folder)),
        ]

    def pid(self) -> int:
        return int((self._data / "postmaster.pid").read_text(encoding="ascii").split("\n")[0])

    def answers(self) -> bool:
        """Whether it takes connections: the port is open a little before that."""
        ready = [_program("pg_isready", "postgresql"), "-q", "-h", "127.0.0.1", "-p", str(self.port)]
        return subprocess.run(ready, check=False).returncode == 0

    def admin(self, statements: str, database: str = "gate") -> str:
        """Have the administrator run statements; what they answer, one row a line."""
        place = ["-h", str(self.folder), "-p", str(self.port), "-U", "admin", "-d", database]
        done = subprocess.run(
            [_program("psql", "postgresql"), "-XqAt", "-v", "ON_ERROR_STOP=1", *place],
            input=statements,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            raise ServerFailed(f"psql: {done.stderr}")
        return done.stdout.strip()

    def url(self, options: str = "", *, scheme: str = "postgresql", user: str = USER) -> str:
        """The URL of the store, by TCP; `options` is what stands after the question mark."""
        return f"{scheme}://{user}:{quote(PASSWORD, safe='')}@127.0.0.1:{self.port}/gate?{options}"

    def socket_url(self, options: str = "") -> str:
        """The same by the socket."""
        place = quote(str(self.folder), safe="")
        return (
            f"postgresql://{USER}:{quote(PASSWORD, safe='')}@/gate"
            f"?host={place}&port={self.port}&{options}"
        )

    @contextlib.contextmanager
    def locking(self, statement: str) -> Generator[None]:
        """The administrator has done `statement` in a transaction that stays open."""
        place = f"host={self.folder} port={self.port} user=admin dbname=gate application_name=locker"
        connection = psycopg.connect(place)
        try:
            connection.execute(statement.encode())
            yield
            connection.rollback()
        finally:
            connection.close()

    def connections(self, name: str = "oauthgate") -> list[int]:
        """The backends that serve an application, by its name."""
        listed = self.admin(
            f"SELECT pid FROM pg_stat_activity WHERE application_name = '{name}' ORDER BY pid"
        )
        return [int(line) for line in listed.split()]


class PgBouncer(_Process):
    """A PgBouncer in transaction mode: each statement of a client may meet another server connection."""

    end = "TERM"

    def __init__(self, postgres: Postgres) -> None:
        folder = postgres.folder / "bouncer"
        folder.mkdir()
        super().__init__(folder, free_port(), "pgbouncer")
        quoted = PASSWORD.replace('"', '""')
        (folder / "users").write_text(f'"{USER}" "{quoted}"\n', encoding="utf-8")
        settings = {
            "listen_addr": "127.0.0.1",
            "listen_port": str(self.port),
            "unix_socket_dir": "",
            "auth_type": "scram-sha-256",
            "auth_file": str(folder / "users"),
            "pool_mode": "transaction",
            "default_pool_size": "3",
            # Seconds for which it refuses everybody after a server that was down; 15 by default.
            "server_login_retry": "1",
            "pidfile": str(folder / "pid"),
        }
        (folder / "ini").write_text(
            f"[databases]\ngate = host=127.0.0.1 port={postgres.port} dbname=gate\n[pgbouncer]\n"
            + "".join(f"{name} = {value}\n" for name, value in settings.items()),
            encoding="utf-8",
        )
        if self._uid is not None and self._gid is not None:
            for path in (folder, *folder.iterdir()):
                os.chown(path, self._uid, self._gid)

    def command(self) -> list[str]:
        return [_program("pgbouncer", "pgbouncer"), str(self.folder / "ini")]

    def pid(self) -> int:
        return int((self.folder / "pid").read_text(encoding="ascii"))

    def servers(self) -> int:
        """How many connections to PostgreSQL it believes it has: it may hear of their end late."""
        alive: set[str] = set()
        for name, what in re.findall(
            r" (S-\w+): .*(new connection to server|closing because)", self.said()
        ):
            (alive.add if what.startswith("new") else alive.discard)(name)
        return len(alive)

    def url(self, options: str = "") -> str:
        return f"postgresql://{USER}:{quote(PASSWORD, safe='')}@127.0.0.1:{self.port}/gate?{options}"


@contextlib.contextmanager
def postgres() -> Generator[Postgres]:
    """Make and run a cluster; it is deleted at the end.

    Raises:
        Missing: PostgreSQL is not installed, or nobody is there to run it.
    """
    _program("postgres", "postgresql")
    # Not pytest's folder: another user must reach it, and a socket's path is at most 107 bytes long.
    folder = Path(tempfile.mkdtemp(prefix="oauthgate-pg-"))
    try:
        user = _other_user()
        if user is not None:
            os.chown(folder, user.pw_uid, user.pw_gid)
        server = Postgres(folder)
        server.start()
        try:
            password = PASSWORD.replace("'", "''")
            server.admin(f"CREATE ROLE {USER} LOGIN PASSWORD '{password}'", "postgres")
            server.admin(f"CREATE DATABASE gate OWNER {USER}", "postgres")
            yield server
        finally:
            server.stop()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def pgbouncer(server: Postgres) -> Generator[PgBouncer]:
    """Run a PgBouncer in transaction mode in front of a cluster.

    Raises:
        Missing: PgBouncer is not installed.
    """
    _program("pgbouncer", "pgbouncer")
    bouncer = PgBouncer(server)
    bouncer.start()
    try:
        yield bouncer
    finally:
        bouncer.stop()
        shutil.rmtree(bouncer.folder, ignore_errors=True)
