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
        super().__init__(
            f"error: no server answers at {url} ({why}); start one with `dockyard serve`, or name another with --url"
        )


class ApiRefused(CommandFailed):
    """The API said no, and why."""

    def __init__(self, status: int, problems: tuple[Problem, ...], request_id: str | None = None) -> None:
        self.status = status
        self.problems = problems
        lines = [_sentence(problem) for problem in problems]
        lines += [f"  {hint}" for hint in dict.fromkeys(_HINTS.get(p.reason or "", "") for p in problems) if hint]
        if status >= 500 and request_id:
            lines.append(f"  request id {request_id}: the server's log tells more")
        super().__init__(*lines)

    def has(self, reason: str) -> bool:
        return any(problem.reason == reason for problem in self.problems)


_OTHER_SOURCES = (
    "a model of this machine goes as a tar or zip: `dockyard models import FOLDER.tar`, one of the hub as hf:org/repo"
)

# What to do next, where the API's own sentence cannot know it: which command of this program helps.
_HINTS = {
    "NO_KEY": "give one with --api-key or DOCKYARD_API_KEY; the server's machine keeps one in <data-dir>/admin-key",
    "UNKNOWN_KEY": "give another key with --api-key or DOCKYARD_API_KEY, or make one: `dockyard keys create --app APP`",
    "MISSING_SCOPE": "use a key of another app, or give this one the scope: `dockyard keys apps change APP --scope …`",
    "NOT_FOUND": "see what there is: `dockyard models list`, `dockyard deployments list`, `dockyard status`",
    "MODEL_NOT_READY": "see how its import goes: `dockyard models show MODEL`",
    "JOB_IN_PROGRESS": "see it with `dockyard status`, wait with `--watch`, or end it with `--cancel`",
    "ENGINE_DOES_NOT_SUPPORT_ARCHITECTURE": "'' is --optimization none; try one with --dry-run, which starts nothing",
    "ENGINE_NOT_INSTALLED": "see what the server has: `dockyard engines list`; '' is --optimization none",
    "QUANTIZATION_NOT_SUPPORTED": "give --optimization ctranslate2, or leave --quantization out",
    "NAME_TAKEN": "see what is deployed: `dockyard deployments list`",
    "NOT_DEPLOYED": "see what is deployed: `dockyard deployments list`",
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


def _sentence(problem: Problem) -> str:
    """`error: <field>: <what is wrong> (<REASON>)`; the field only where the sentence does not name it already."""
    where = f"{problem.field}: " if problem.field and problem.field not in problem.msg else ""
    reason = f" ({problem.reason})" if problem.reason else ""
    return f"error: {where}{problem.msg}{reason}"
