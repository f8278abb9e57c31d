"""A trial of the model's chat templates, in the process that can be killed: what never ends here would hold a replica.

A template may still refuse what the trial says; that is its right, and a client's 400. What is refused here is one that
no Jinja reads, that reaches for Python, or that takes time and memory without bound.
"""

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from jinja2.exceptions import SecurityError, TemplateSyntaxError

from dockyard.errors import Failed, Reason
from dockyard.prepare.files import read_inside
from dockyard.prepare.folder import read_json
from dockyard.template_sandbox import TemplateSandbox

FILE = "chat_template.jinja"
CONFIG = "tokenizer_config.json"

_LARGEST = 1 << 20  # bytes; the longest known have 20,000
_MOST = 20  # templates by name
_CPU_S = 2.0  # of a trial; an ordinary one takes milliseconds
_LOOK_EVERY_S = 0.02
_TRIAL = ({"role": "user", "content": "Hello"},)


def check_chat_templates(folder: Path) -> None:
    """Raise `Failed` (CHAT_TEMPLATE_REFUSED) unless each of the folder's templates can be tried."""
    root = folder.resolve(strict=True)
    for name, source in _templates(root):
        if len(source) > _LARGEST:
            raise _refused(name, f"it has more than {_LARGEST} characters")
        trouble = _tried(source)
        if trouble is not None:
            raise _refused(name, trouble)


def _templates(root: Path) -> Iterator[tuple[str, str]]:
    """(where it stands, the template)."""
    if (root / FILE).is_file():
        content = read_inside(root, FILE, _LARGEST)
        if content is None:
            raise _refused(FILE, f"it has more than {_LARGEST} bytes")
        yield FILE, content.decode("utf-8", "replace")
    config = read_json(root, CONFIG) if (root / CONFIG).is_file() else None
    told: Any = (config or {}).get("chat_template")
    if isinstance(told, str):
        yield f"chat_template of {CONFIG}", told
    elif isinstance(told, list):
        for entry in told[:_MOST]:
            if isinstance(entry, dict) and isinstance(entry.get("template"), str):
                yield f"chat_template {str(entry.get('name'))[:40]!r} of {CONFIG}", entry["template"]


def _tried(source: str) -> str | None:
    """What is wrong with the template; None for one that ends, by an answer or its own refusal."""
    told: list[str | None] = []
    trial = threading.Thread(target=lambda: told.append(_trouble(source)), name="chat template", daemon=True)
    began = time.process_time()
    trial.start()
    while trial.is_alive():
        trial.join(_LOOK_EVERY_S)
        if trial.is_alive() and time.process_time() - began > _CPU_S:
            return f"it takes more than {_CPU_S:g} s for one short message"
    return told[0] if told else "it cannot be tried"


def _trouble(source: str) -> str | None:
    sandbox = TemplateSandbox()
    sandbox.filters["tojson"] = str
    sandbox.globals |= {"raise_exception": _raise, "strftime_now": str}
    try:
        sandbox.from_string(source).render(
            messages=[dict(message) for message in _TRIAL], add_generation_prompt=True, tools=None, documents=None
        )
    except TemplateSyntaxError as error:
        return f"line {error.lineno}: {error.message}"
    except SecurityError as error:
        return str(error)
    except (OverflowError, RecursionError, MemoryError) as error:
        return str(error) or "it takes too much memory"
    except Exception:  # noqa: BLE001  its own refusal, or a want of what the trial lacks: a client will be told
        return None
    return None


def _raise(message: str) -> None:
    raise ValueError(message)


def _refused(name: str, why: str) -> Failed:
    return Failed(
        f"the chat template ({name}) is refused: {why[:200].rstrip('. ')}; mend or remove it, then import again",
        reason=Reason.CHAT_TEMPLATE_REFUSED,
    )
