"""Writes docs/reference from the code: settings, commands, errors, lifecycles, devices, engines, routes.

`--check` writes nothing, prints the difference and exits with 1 when a page is stale.
"""

import difflib
import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from reference_routes import routes_page
from typer.main import get_command

from dockyard.api.problems import STATUS
from dockyard.cli.main import app
from dockyard.domain.compatibility import ARCHITECTURES, COMPUTE_TYPES, QUANTIZATIONS
from dockyard.domain.devices import DEVICES
from dockyard.domain.job import PHASES
from dockyard.domain.lifecycle import MACHINES, DeploymentState, Machine
from dockyard.domain.spec import EngineName
from dockyard.errors import DockyardError, Reason
from dockyard.settings import Settings

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "docs" / "reference"
SHOWN_ENGINES = [engine for engine in EngineName if engine is not EngineName.ECHO]  # echo is for tests
SECRET = ("admin_key", "database_url")
COMMON = ("url", "api_key", "as_json")  # the options of `dockyard.cli.command`

SETTINGS_INTRO = """\
Every setting of the server is a variable; all but the secrets are also a flag of `dockyard serve`, and the flag wins.
A value that is wrong stops the start with exit code 2.
"""
SETTINGS_END = """
The command line reads two more: `DOCKYARD_URL` (the server; default `http://127.0.0.1:8000`) and `DOCKYARD_API_KEY`
(the key; else `DOCKYARD_ADMIN_KEY`, else the file `admin-key` in `DOCKYARD_DATA_DIR`, which is read for a server on
this machine only).
"""
COMMANDS_INTRO = """\
A terminal gets tables and progress bars, a pipe one line per row with tabs between the cells and no head, `--json` the
API's JSON. Results go to standard output, everything else to standard error.

Exit codes: 0 it worked; 1 it failed, or the job that was looked at has FAILED; 2 wrong usage; 130 Ctrl-C.

`dockyard --install-completion` installs the completion of your shell, `--show-completion` prints it.

Every command but `serve` and `version` also takes:
"""
ERRORS_INTRO = """\
Every error of `/api/public` is `{"errors": [{"msg", "code", "reason", "field"}]}`, all problems of a request at once.
The inference routes answer in OpenAI's shape, with the reason as `code`. A job that failed has a reason of this list,
too. Act on `reason`: it is stable. `msg` is for people and may change.
"""
COMPATIBILITY_INTRO = """\
Each yes of `transformers` and `ctranslate2` is proven by a test: it makes a small model of the architecture and lets
the engine continue two prompts. Each – is proven by one that a deploy is refused; the refusal names the values of
`optimizationType` that can.

`transformers` is what a deploy without `optimizationType` gets. `vllm` needs `dockyard engines install vllm`; what is
said of it is what vLLM says of itself.
"""
COMPATIBILITY_LIMITS = """

A yes of `ctranslate2` at `no_quantization` means the tokens that `transformers` chooses. So it says no where it would
compute something else: Gemma 2 caps its attention, Mixtral and the other mixtures route through experts. And of a model
that it runs, it serves a part:

- **A sliding window** (Mistral 7B v0.1, Phi-3 mini 4k, Gemma 3) or **LongRoPE** (Phi-3 128k, Phi-4 mini): the context
  is that of the window, or the original length. The dry run says so as a warning; `transformers` serves all.
- **Weights that are quantized already** (AWQ, GPTQ), and a few fields of `config.json` that no published model of note
  sets: refused, with the field.
"""


def main(check: bool) -> int:
    os.environ["HOME"] = "/~"  # so that the default data directory reads alike on every machine
    os.environ.pop("XDG_DATA_HOME", None)
    stale = 0
    for name, page in PAGES.items():
        title, text = page()
        head = f"<!-- Made by scripts/docs from the code; edit that, not this. -->\n\n# {title}\n\n"
        stale += not settle(FOLDER / name, head + text.strip() + "\n", check)
    if stale:
        print(f"{stale} page(s) of docs/reference are stale; run scripts/docs", file=sys.stderr)
    broken = list(broken_links())
    for page, link in broken:
        print(f"{page}: {link} leads nowhere", file=sys.stderr)
    return 1 if stale or broken else 0


def broken_links() -> Iterator[tuple[Path, str]]:
    """Links from a page of ours to a file that is not there."""
    for page in (*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")):
        for link in re.findall(r"\]\(([^)#:\s]+)[^)]*\)", page.read_text()):
            if not (page.parent / link).exists():
                yield page.relative_to(ROOT), link


def settle(path: Path, wanted: str, check: bool) -> bool:
    """Write `wanted`, or with `check` tell whether it is there already."""
    present = path.read_text() if path.exists() else ""
    if not check:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(wanted)
        return True
    difference = difflib.unified_diff(present.splitlines(True), wanted.splitlines(True), f"{path.name}", "wanted")
    sys.stderr.writelines(difference)
    return present == wanted


def settings_page() -> tuple[str, str]:
    rows = []
    for name, field in Settings.model_fields.items():
        default = field.get_default(call_default_factory=True, validated_data={})
        flag = "–" if name in SECRET else f"`--{name.replace('_', '-')}`"
        rows.append((f"`DOCKYARD_{name.upper()}`", flag, _default(default), field.description or ""))
    shown = table(("variable", "flag", "default", "what it does"), rows)
    return "Settings", f"{SETTINGS_INTRO}\n{shown}\n{SETTINGS_END}"


def commands_page() -> tuple[str, str]:
    leaves = list(_leaves(get_command(app), ()))
    common = [_row(param) for param in leaves[1][1].params if param.name in COMMON]
    commands = (_command(path, command) for path, command in leaves)
    return "Command line", "\n".join((COMMANDS_INTRO, table(("", "meaning", "default"), common), "", *commands))


def errors_page() -> tuple[str, str]:
    meanings: dict[str, str] = {}
    for kind in _kinds(DockyardError):  # the general ones come first
        meanings.setdefault(kind.kind, (kind.__doc__ or "").strip().split("\n")[0])
    statuses = sorted((str(status), meanings[kind]) for kind, status in STATUS.items() if kind in meanings)
    reasons = table(("reason", "what it means"), [(f"`{reason.value}`", reason.doc) for reason in Reason])
    codes = table(("status", "what it means"), statuses)
    return "Errors", f"{ERRORS_INTRO}\n## Reasons\n\n{reasons}\n\n## Statuses\n\n{codes}"


def lifecycles_page() -> tuple[str, str]:
    parts = [
        "Each diagram is drawn from the transition table that the code checks; what it does not show cannot happen.\n"
    ]
    parts += [f"## {machine.name.capitalize()}\n\n{_diagram(machine)}\n" for machine in MACHINES]
    states = ", ".join(f"*{state.value}*" for state in DeploymentState)
    parts.append(
        "## Deployment\n\nA deployment has no machine of its own. Its state is read off its versions and replicas:\n"
        f"{states}.\nIt is *Failed*, too, when its version was Deployed and the replicas now only crash.\n"
    )
    parts.append(
        "## Phases of a job\n\nIn order, each with the percentage at which it begins. A phase may be skipped.\n"
    )
    rows = [
        (f"`{action.value}`", ", ".join(f"`{phase.value}` {start}" for phase, start in phases))
        for action, phases in PHASES.items()
    ]
    parts.append(table(("action", "phases"), rows))
    return "Lifecycles", "\n".join(parts)


def devices_page() -> tuple[str, str]:
    rows = [
        (
            f"`{d.name}`",
            f"{d.gpus} × {d.gpu}",
            str(d.gpu_memory_mib),
            str(d.vcpus),
            str(d.memory_gib),
            f"{d.usd_per_hour:g}",
        )
        for d in DEVICES.values()
    ]
    text = (
        "The device types that a deploy may name. The price is the provider's published on-demand price; the dry run "
        "estimates\nwith it.\n\n"
        + table(("deviceType", "GPUs", "GPU memory each (MiB)", "vCPUs", "memory (GiB)", "USD per hour"), rows)
        + "\n\nHow the host stands in for a device: [Devices and fit](../concepts/devices-and-fit.md)."
    )
    return "Devices", text


def compatibility_page() -> tuple[str, str]:
    columns = [(engine, quantization) for engine in SHOWN_ENGINES for quantization in QUANTIZATIONS[engine]]
    matrix = [
        (
            f"`{name}`",
            known.family.value.replace("_", "-"),
            *("yes" if engine in known.engines else "–" for engine, _ in columns),
        )
        for name, known in sorted(ARCHITECTURES.items())
        if name != "EchoForCausalLM"
    ]
    quantizations = [(f"`{e}`", ", ".join(f"`{q}`" for q in QUANTIZATIONS[e])) for e in SHOWN_ENGINES]
    precisions = [
        (f"`{engine}`", f"`{quantization}`", device, f"`{precision}`")
        for (engine, quantization, device), precision in COMPUTE_TYPES.items()
        if engine in SHOWN_ENGINES
    ]
    text = (
        COMPATIBILITY_INTRO
        + "\n## Architectures\n\n"
        + table(("architecture", "family", *(f"{e} `{q}`" for e, q in columns)), matrix)
        + COMPATIBILITY_LIMITS
        + "\n\n## Quantization\n\n"
        + table(("engine", "quantizationType"), quantizations)
        + "\n\n## Precision\n\nWhat is computed in, by engine, quantization and what really runs the replica.\n\n"
        + table(("engine", "quantizationType", "on", "precision"), precisions)
        + "\n\nOn GPUs Transformers and vLLM compute in `float16` where the weights are stored in it, or the GPU lacks "
        "`bfloat16`:\n[Devices and fit](../concepts/devices-and-fit.md#precision)."
    )
    return "Engines, architectures, precision", text


PAGES: dict[str, Callable[[], tuple[str, str]]] = {
    "api.md": routes_page,
    "cli.md": commands_page,
    "compatibility.md": compatibility_page,
    "devices.md": devices_page,
    "errors.md": errors_page,
    "lifecycles.md": lifecycles_page,
    "settings.md": settings_page,
}


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(
        "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in line) + " |" for line in lines
    )


def _default(value: object) -> str:
    match value:
        case None | () | "":
            return "–"
        case _:
            return f"`{value}`".replace("/~", "~")


def _leaves(command: Any, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any]]:
    nested = getattr(command, "commands", None)
    if nested is None:
        yield path, command
        return
    for name, child in nested.items():
        yield from _leaves(child, (*path, name))


def _command(path: tuple[str, ...], command: Any) -> str:
    arguments = [p for p in command.params if p.param_type_name == "argument"]
    options = [p for p in command.params if p.param_type_name == "option" and p.name not in ("help", *COMMON)]
    usage = " ".join(("dockyard", *path, *(p.metavar or p.name.upper() for p in arguments), "[OPTIONS]"))
    rows = [(f"`{p.metavar or p.name.upper()}`", p.help or "", "") for p in arguments]
    rows += [_row(option) for option in options]
    text = f"## dockyard {' '.join(path)}\n\n`{usage}`\n\n{command.help}\n"
    return f"{text}\n{table(('', 'meaning', 'default'), rows)}\n" if rows else text


def _row(option: Any) -> tuple[str, str, str]:
    return _flags(option), option.help or "", _shown_default(option)


def _flags(param: Any) -> str:
    return ", ".join(f"`{flag}`" for flag in (*param.opts, *param.secondary_opts))


def _shown_default(param: Any) -> str:
    shown = param.show_default if isinstance(param.show_default, str) else param.default
    return "" if shown in (None, False) or callable(shown) else str(shown)


def _kinds(kind: type[DockyardError]) -> Iterator[type[DockyardError]]:
    """Breadth first: a kind before those that are made of it."""
    children = kind.__subclasses__()
    yield from (child for child in children if "kind" in vars(child))
    for child in children:
        yield from _kinds(child)


def _diagram(machine: Machine[Any]) -> str:
    ids = {state: state.name for state in machine.table}
    lines = [f'    state "{state.value}" as {name}' for state, name in ids.items() if state.value != name]
    lines.append(f"    [*] --> {ids[machine.initial]}")
    for before, afters in machine.table.items():
        lines += [f"    {ids[before]} --> {ids[after]}" for after in afters] or [f"    {ids[before]} --> [*]"]
    return "```mermaid\nstateDiagram-v2\n" + "\n".join(lines) + "\n```"


if __name__ == "__main__":
    sys.exit(main(check="--check" in sys.argv[1:]))
