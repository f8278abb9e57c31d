"""What can go wrong in a command, each with its exit code, and the lines that a person reads.

CommandFailed        1   the command ran and did not get what it wanted
├── ApiRefused       1   the API answered with problems, each on a line of its own
└── Unreachable      1   nothing answers at the URL
BadUsage             2   the command line itself is wrong
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Problem:
    """One entry of the API's `errors`."""

    msg: str
    reason: str | None = None
    field: str | None = None


class CommandFailed(Exception):
    """The command did not get what it wanted. `lines` are printed to standard error."""

    exit_code = 1

    def __init__(self, *lines: str) -> None:
        self.lines = lines
        super().__init__("\n".join(lines))


class BadUsage(CommandFailed):
    """The command line cannot be meant as it stands."""

    exit_code = 2


class Unreachable(CommandFailed):
    """Nothing answers at the URL."""

    def __init__(self, url: str, why: str) -> None:
        if url.startswith("https:") and "WRONG_VERSION_NUMBER" in why:  # OpenSSL's words for an answer that is no TLS
            super().__init__(
                f"error: {url} speaks no HTTPS; a `dockyard serve` of its own speaks HTTP: http:{url[len('https:') :]}"
            )
            return
        super().__init__(
            f"error: no server answers at {url} ({why}); start one with `dockyard serve`, or name another with --url"
            " or DOCKYARD_URL"
        )


class ApiRefused(CommandFailed):
    """The API said no, and why."""

    def __init__(
        self,
        status: int,
        problems: tuple[Problem, ...],
        request_id: str | None = None,
        retry_after: str | None = None,
    ) -> None:
        self.status = status
        self.problems = problems
        lines = [_sentence(problem) for problem in problems]
        lines += [f"  {hint}" for hint in hints(*(problem.reason for problem in problems))]
        lines += [f"  {field} is {flag}" for field, flag in _FLAGS.items() if any(p.field == field for p in problems)]
        if retry_after:
            lines.append(f"  try again in {retry_after} s")
        if status >= 500 and request_id:
            lines.append(f"  request id {request_id}: the server's log tells more")
        super().__init__(*lines)

    def has(self, reason: str) -> bool:
        return any(problem.reason == reason for problem in self.problems)


def hints(*reasons: str | None) -> list[str]:
    """What to do next about each of the reasons, where this program can tell, once."""
    return [hint for hint in dict.fromkeys(_HINTS.get(reason or "", "") for reason in reasons) if hint]


_OTHER_SOURCES = (
    "a model of this machine goes as a tar or zip: `dockyard models import FOLDER.tar`, one of the hub as hf:org/repo"
)

_WHERE_KEYS_ARE = (
    "give one with --api-key or DOCKYARD_API_KEY; `dockyard serve` keeps one in <data-dir>/admin-key, which is found "
    "without either on its machine, where DOCKYARD_DATA_DIR names the same folder for both"
)
_MAKE_ROOM = "what frees space: `dockyard models prune`, `dockyard models delete MODEL`"
_OTHER_BASE = "that is `dockyard models import … --base MODEL`; see what there is: `dockyard models list`"

# What to do next, where the API's own sentence cannot know it: which command of this program helps.
_HINTS = {
    "NO_KEY": _WHERE_KEYS_ARE,
    "UNKNOWN_KEY": _WHERE_KEYS_ARE,
    "MISSING_SCOPE": "use a key of another app, or give this one the scope: `dockyard keys apps change APP --scope …`",
    "NOT_FOUND": "see what there is: `dockyard models list`, `dockyard deployments list`, `dockyard status`",
    "MODEL_NOT_READY": "see how its import goes: `dockyard models show MODEL`",
    "JOB_IN_PROGRESS": "see it with `dockyard status`, wait with `--watch`, or end it with `--cancel`",
    "ENGINE_DOES_NOT_SUPPORT_ARCHITECTURE": "'' is --optimization none; try one with --dry-run, which starts nothing",
    "ENGINE_NOT_INSTALLED": "see what the server has: `dockyard engines list`; '' is --optimization none",
    "QUANTIZATION_NOT_SUPPORTED": "give --optimization ctranslate2, or leave --quantization out",
    "NAME_TAKEN": "see what is deployed: `dockyard deployments list`",
    "NOT_DEPLOYED": "see what is deployed: `dockyard deployments list`",
    "DISK_FULL": _MAKE_ROOM,
    "BASE_MODEL_MISSING": _OTHER_BASE,
    "BASE_MODEL_NOT_USABLE": _OTHER_BASE,
    "ADAPTER_DOES_NOT_FIT": _OTHER_BASE,
    "BASE_MODEL_IN_USE": "that is `dockyard models delete MODEL`, for each adapter on it",
    "ARCHIVE_KIND_MISMATCH": "the end of the file's name tells its kind: FILE.tar for a plain tar, FILE.zip for a zip",
    "STILL_DEPLOYED": "that is `dockyard undeploy MODEL --wait`",
    "DOES_NOT_FIT_DEVICE": "take another of `dockyard devices`, or a smaller --max-batch-size; a part of a device's "
    "memory is the driver's and cannot be planned with",
    "DEVICE_NOT_AVAILABLE": "see the devices and what the host has: `dockyard devices`",
    "model_not_found": "see what is deployed: `dockyard deployments list`",  # OpenAI's spelling
    "MODEL_NOT_SERVED": "see what is deployed: `dockyard deployments list`",
    "NO_CHAT_TEMPLATE": "let it continue your text instead: `dockyard chat --completion DEPLOYMENT TEXT`",
    "NO_REPLICA": "see why: `dockyard deployments show DEPLOYMENT`",
    "PATH_NOT_FOUND": f"check the path; {_OTHER_SOURCES}",
    "PATH_NOT_ALLOWED": "the server's DOCKYARD_IMPORT_ROOTS names the folders that models may come from; "
    + _OTHER_SOURCES,
}

# Fields of a request whose flag has another name.
_FLAGS = {
    "modelType": "--type",
    "deviceType": "--device",
    "optimizationInfo.optimizationType": "--optimization",
    "optimizationInfo.quantizationType": "--quantization",
    "hyperParameters.stopSequence": "--stop",
}


def _sentence(problem: Problem) -> str:
    """`error: <field>: <what is wrong> (<REASON>)`; the field only where the sentence does not name it already."""
    where = f"{problem.field}: " if problem.field and problem.field not in problem.msg else ""
    reason = f" ({problem.reason})" if problem.reason else ""
    return f"error: {where}{problem.msg}{reason}"
