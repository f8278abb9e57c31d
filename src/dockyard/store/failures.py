"""What a database can do wrong, in Dockyard's own errors. Only this module knows the codes of SQLite and PostgreSQL."""

import errno
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import Enum, auto

from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from dockyard.errors import Conflict, DockyardError, Failed, Reason, Unavailable


class Trouble(Enum):
    """The kinds of failure that a caller can tell apart."""

    FULL = auto()
    BUSY = auto()
    UNREACHABLE = auto()
    REFUSED = auto()
    READ_ONLY = auto()
    DAMAGED = auto()
    DUPLICATE = auto()
    REFERENCED = auto()
    OTHER = auto()


# Extended codes first, then the primary ones (their lowest byte): https://sqlite.org/rescode.html
SQLITE_CODES = {
    2067: Trouble.DUPLICATE,  # SQLITE_CONSTRAINT_UNIQUE
    1555: Trouble.DUPLICATE,  # SQLITE_CONSTRAINT_PRIMARYKEY
    787: Trouble.REFERENCED,  # SQLITE_CONSTRAINT_FOREIGNKEY
    13: Trouble.FULL,  # SQLITE_FULL
    5: Trouble.BUSY,  # SQLITE_BUSY
    6: Trouble.BUSY,  # SQLITE_LOCKED
    14: Trouble.UNREACHABLE,  # SQLITE_CANTOPEN
    10: Trouble.UNREACHABLE,  # SQLITE_IOERR
    23: Trouble.REFUSED,  # SQLITE_AUTH
    3: Trouble.REFUSED,  # SQLITE_PERM
    8: Trouble.READ_ONLY,  # SQLITE_READONLY
    11: Trouble.DAMAGED,  # SQLITE_CORRUPT
    26: Trouble.DAMAGED,  # SQLITE_NOTADB
}

# Whole states first, then classes (the first two characters):
# https://www.postgresql.org/docs/current/errcodes-appendix.html
POSTGRESQL_STATES = {
    "23505": Trouble.DUPLICATE,  # unique_violation
    "23503": Trouble.REFERENCED,  # foreign_key_violation
    "53100": Trouble.FULL,  # disk_full
    "53": Trouble.BUSY,  # insufficient_resources: too many connections, no memory
    "55P03": Trouble.BUSY,  # lock_not_available
    "40": Trouble.BUSY,  # transaction_rollback: deadlock, serialization failure
    "57": Trouble.UNREACHABLE,  # operator_intervention: shutting down, starting up
    "58": Trouble.UNREACHABLE,  # system_error
    "08": Trouble.UNREACHABLE,  # connection_exception
    "25P03": Trouble.BUSY,  # idle_in_transaction_session_timeout
    "3D": Trouble.REFUSED,  # invalid_catalog_name: no such database
    "28": Trouble.REFUSED,  # invalid_authorization_specification
    "42501": Trouble.REFUSED,  # insufficient_privilege
    "25006": Trouble.READ_ONLY,  # read_only_sql_transaction
    "XX001": Trouble.DAMAGED,  # data_corrupted
    "XX002": Trouble.DAMAGED,  # index_corrupted
}

ERRORS: dict[Trouble, Callable[[], DockyardError]] = {
    Trouble.FULL: lambda: Unavailable(
        "the disk of the database is full; free some space and try again", reason=Reason.DISK_FULL, retry_after_s=5
    ),
    Trouble.BUSY: lambda: Unavailable(
        "the database is busy; try again", reason=Reason.DATABASE_UNAVAILABLE, retry_after_s=1
    ),
    Trouble.UNREACHABLE: lambda: Unavailable(
        "the database cannot be reached; see the server's log for its answer",
        reason=Reason.DATABASE_UNAVAILABLE,
        retry_after_s=1,
    ),
    Trouble.REFUSED: lambda: Unavailable(
        "the database refuses the server; check the user, the password and the database's name in its URL",
        reason=Reason.DATABASE_UNAVAILABLE,
        retry_after_s=5,
    ),
    Trouble.READ_ONLY: lambda: Unavailable(
        "the database is read-only; check the permissions of its files, or point its URL at the primary",
        reason=Reason.DATABASE_UNAVAILABLE,
        retry_after_s=5,
    ),
    Trouble.DAMAGED: lambda: Failed("the database is damaged; restore it from a backup"),
    Trouble.DUPLICATE: lambda: Conflict("there is one with that id or name already", reason=Reason.ALREADY_EXISTS),
    Trouble.REFERENCED: lambda: Conflict(
        "something else refers to it, or what it refers to is not there", reason=Reason.STILL_REFERENCED
    ),
    Trouble.OTHER: lambda: Failed("the database refused a statement; the log has its answer"),
}


@contextmanager
def translated() -> Iterator[None]:
    """Turn what SQLAlchemy and the drivers raise inside into a `DockyardError`, with the original as its cause."""
    try:
        yield
    except Exception as error:
        trouble = trouble_of(error)
        if trouble is None:
            raise
        raise ERRORS[trouble]() from error


def trouble_of(error: BaseException) -> Trouble | None:
    """The kind of failure that `error` is; None if it is no database's."""
    if isinstance(error, OSError):  # TimeoutError is one, too
        return Trouble.FULL if error.errno == errno.ENOSPC else Trouble.UNREACHABLE
    if isinstance(error, PoolTimeoutError):
        return Trouble.BUSY
    if isinstance(error, DBAPIError):
        known = error.orig and _trouble_of_driver(error.orig)
        return known or (Trouble.UNREACHABLE if error.connection_invalidated else Trouble.OTHER)
    if isinstance(error, SQLAlchemyError):
        return Trouble.OTHER
    return _trouble_of_driver(error)  # the drivers' own classes come through while a connection is made


def _trouble_of_driver(error: BaseException) -> Trouble | None:
    code = getattr(error, "sqlite_errorcode", None)
    if isinstance(code, int):
        return SQLITE_CODES.get(code) or SQLITE_CODES.get(code & 0xFF, Trouble.OTHER)
    state = getattr(error, "sqlstate", None)
    if isinstance(state, str):
        return POSTGRESQL_STATES.get(state) or POSTGRESQL_STATES.get(state[:2], Trouble.OTHER)
    return None
