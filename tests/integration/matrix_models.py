"""A tiny random model of every architecture in the matrix, imported, converted and run on every engine that says yes.

    python -m tests.integration.matrix_models FOLDER

Leaves in the folder: `models/<name>`, as they were saved; `artifacts`, as the product imported and converted them; and
`seen.json`: model → engine and quantization → the greedy token ids of two prompts of one batch, or what went wrong.
In a process of its own: it imports torch, and what the libraries warn of is theirs.
"""

import asyncio
import copy
import json
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.integration.gguf_models import NAMES as GGUF
from tests.integration.gguf_models import write_gguf
from tests.integration.matrix_configs import CONFIGS, VARIATIONS, VOCABULARY

from dockyard.domain.card import Family, ModelCard
from dockyard.domain.compatibility import ARCHITECTURES, QUANTIZATIONS, card_on, compute_type
from dockyard.domain.spec import EngineName, Quantization
from dockyard.engines.base import Engine, Generation, Row, Sampling
from dockyard.engines.continuous import Seat
from dockyard.engines.outbox import Outbox
from dockyard.engines.registry import import_engine
from dockyard.prepare.convert_task import run_convert
from dockyard.prepare.describe import describe
from dockyard.prepare.import_task import run_import
from dockyard.prepare.reporting import Reporter
from dockyard.protocols.generation import WorkerSpec
from dockyard.protocols.preparation import ConvertTask, ImportTask, PathSource

ROOT = Path(__file__).parents[2]
MODELS = Path(__file__).parents[1] / "models"
INSTALLED = (EngineName.TRANSFORMERS, EngineName.CTRANSLATE2)
# Of two lengths, so that one of them is padded; long enough for positions to matter.
PROMPTS = tuple(tuple((7 * i * i + 31 * i + 5) % (VOCABULARY - 60) + 10 for i in range(n)) for n in (36, 9))
NEW_TOKENS = 8
GREEDY = Sampling(temperature=0)
TEXT = "In the beginning God created the heaven and the earth."  # what a client sends


def cells() -> Iterable[tuple[str, str, EngineName, Quantization]]:
    """(model, architecture, engine, quantization) of what is to generate; variations where the two engines compare."""
    for architecture in CONFIGS:
        for engine in ARCHITECTURES[architecture].engines:
            if engine in INSTALLED:
                for quantization in QUANTIZATIONS[engine]:
                    yield architecture, architecture, engine, quantization
    for name, (architecture, _) in VARIATIONS.items():
        for engine in INSTALLED:
            yield name, architecture, engine, Quantization.NONE


def make(architecture: str, config: dict[str, Any], folder: Path) -> None:
    """Save a random model of the architecture, with the tokenizer of a test model."""
    import torch
    import transformers

    torch.manual_seed(7)
    model_class = getattr(transformers, architecture)
    model = model_class(model_class.config_class(**copy.deepcopy(config)))  # it writes into what it is given
    # Default initializations are so small that every next token is as likely as any other, and leave norms and biases
    # without an effect; with this the choices are clear, so that two engines can agree on them.
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.normal_(0, 0.3)
            else:
                parameter.add_(torch.randn_like(parameter) * 0.2)
        if config.get("tie_word_embeddings") is False and hasattr(model, "shared"):  # as Flan-T5; its class ties them
            model.lm_head.weight = torch.nn.Parameter(torch.randn_like(model.shared.weight) * 0.3)
        if config.get("scale_embedding"):  # else the last token outweighs all that the layers add, and is said again
            model.model.shared.weight.div_(config["d_model"] ** 0.5)
        if architecture == "MarianMTModel":
            model.model.shared.weight[-1] = 0.0  # the padding, which a decoder starts from
            model.generation_config.bad_words_ids = [[config["pad_token_id"]]]
    if config.get("forced_bos_token_id") is not None:  # the class of the config does not keep it
        model.generation_config.forced_bos_token_id = config["forced_bos_token_id"]
    model.save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(MODELS / "gpt2-kjv" / name, folder / name)


async def run(
    engine_name: EngineName, quantization: Quantization, folder: Path, artifact: Path, card: ModelCard
) -> list[list[int]]:
    """What the engine continues the prompts with, greedily, both in one batch."""
    with loaded(engine_name, quantization, folder, artifact, card) as engine:
        generations = [engine.submit(Row(prompt, NEW_TOKENS, GREEDY)) for prompt in PROMPTS]
        return [[token async for ids in generation for token in ids] for generation in generations]


async def run_joined(folder: Path, card: ModelCard) -> list[list[int]]:
    """What they become on Transformers when two more join at the fourth step of two, and prompts are read in pieces so
    small that some are nothing but padding for the shorter ones.
    """
    from transformers import AutoModelForCausalLM

    from dockyard.engines import joining

    joining.CHUNK, joining.CHUNK_ALONE = {"cpu": 5}, 11
    model: Any = AutoModelForCausalLM.from_pretrained(folder).eval()
    joining.settle_long_rope(model, served_context(card))
    decoder = joining.JoiningDecoder(model, capacity=4, never=())
    outbox = Outbox(frozenset(card.eos_token_ids))
    generations = [Generation(Row(prompt, NEW_TOKENS, GREEDY), lambda _: None) for prompt in 2 * PROMPTS]
    seats = [Seat(generation, outbox, extra=False) for generation in generations]
    decoder.join(seats[:2])
    steps = 0
    while not all(seat.ended for seat in seats):
        if steps == 4:
            decoder.join(seats[2:])
        decoder.step()
        steps += 1
    outbox.deliver()
    return [[token async for ids in generation for token in ids] for generation in generations]


def served_context(card: ModelCard) -> int | None:
    """As far as the model is what it was first trained as: past that LongRoPE has other frequencies for all texts."""
    return card.plain_context or card.context_length


@contextmanager
def loaded(
    engine_name: EngineName, quantization: Quantization, folder: Path, artifact: Path, card: ModelCard
) -> Iterator[Engine]:
    card_on(engine_name, card)  # raises where it cannot
    engine = import_engine(engine_name)(
        WorkerSpec(
            replica_id="rp-1",
            token="t",
            engine=engine_name,
            artifact_dir=str(artifact),
            model_dir=str(folder),
            family=card.family,
            device="cpu",
            compute_type=compute_type(engine_name, quantization, "cpu"),
            max_batch_size=len(PROMPTS),
            context_length=served_context(card),
            threads=1,
            eos_token_ids=list(card.eos_token_ids),
            decoder_start_token_id=card.decoder_start_token_id,
            forced_bos_token_id=card.forced_bos_token_id,
        )
    )
    engine.load()
    try:
        yield engine
    finally:
        engine.close()


def run_alone(folder: Path, card: ModelCard) -> dict[str, Any]:
    """What Transformers itself makes of each prompt, one at a time, with all that the model's files say.

    `alone`: the ids; `text`: what it writes after `TEXT`.
    """
    import torch
    from tokenizers import Tokenizer
    from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM

    decoder = card.family is Family.DECODER
    model: Any = (AutoModelForCausalLM if decoder else AutoModelForSeq2SeqLM).from_pretrained(folder).eval()
    forced = 0 if card.forced_bos_token_id is None else 1

    def continued(prompt: list[int]) -> list[int]:
        ids = torch.tensor([prompt])
        made = model.generate(
            ids, attention_mask=torch.ones_like(ids), max_new_tokens=forced + NEW_TOKENS, do_sample=False, num_beams=1
        )
        return made[0, len(prompt) if decoder else 1 + forced :].tolist()

    tokenizer: Any = Tokenizer.from_file(str(folder / "tokenizer.json"))
    text = tokenizer.decode(continued(tokenizer.encode(TEXT).ids))
    return {"alone": [continued(list(prompt)) for prompt in PROMPTS], "text": text}


class Shelf:
    """What the product imports and converts, in a folder as a server has it."""

    def __init__(self, root: Path) -> None:
        self._artifacts, self._scratch = root / "artifacts", root / "scratch"
        self._count = 0

    def imported(self, source: Path) -> Path:
        task = ImportTask(source=PathSource(path=str(source)), **self._places())
        return self._artifacts / run_import(task, Reporter(sys.stderr.buffer)).key

    def converted(self, folder: Path, engine: EngineName, quantization: Quantization) -> Path:
        task = ConvertTask(source_key=folder.name, engine=engine, quantization=quantization, **self._places())
        return self._artifacts / run_convert(task, Reporter(sys.stderr.buffer)).key

    def _places(self) -> dict[str, Any]:
        self._count += 1
        scratch = self._scratch / str(self._count)
        scratch.mkdir(parents=True)
        return {"artifacts_dir": str(self._artifacts), "scratch_dir": str(scratch)}


def run_gguf(shelf: Shelf, source: Path) -> list[list[int]]:
    """What Transformers continues with after the model went through a GGUF file and the import."""
    file = source.with_name(f"{source.name}.gguf")
    write_gguf(source, file)
    folder = shelf.imported(file)
    return asyncio.run(run(EngineName.TRANSFORMERS, Quantization.NONE, folder, folder, describe(folder)))


def make_all(folder: Path) -> None:
    """All of this, in a process of its own."""
    command = [sys.executable, "-W", "ignore", "-m", __name__, str(folder)]
    subprocess.run(command, cwd=ROOT, check=True, timeout=300)


def main() -> None:
    root = Path(sys.argv[1])
    configs = {name: (name, config) for name, config in CONFIGS.items()} | VARIATIONS
    shelf, folders = Shelf(root), dict[str, Path]()
    seen: dict[str, dict[str, Any]] = {}
    for name, architecture, engine, quantization in cells():
        told = seen.setdefault(name, {})
        try:
            if name not in folders:
                make(architecture, configs[name][1], root / "models" / name)
                folders[name] = shelf.imported(root / "models" / name)
            folder = folders[name]
            artifact = shelf.converted(folder, engine, quantization)
            told[f"{engine} {quantization}"] = asyncio.run(
                run(engine, quantization, folder, artifact, describe(folder))
            )
        except Exception as error:  # noqa: BLE001 - told cell by cell
            told[f"{engine} {quantization}"] = f"{type(error).__name__}: {error}"
    for name, folder in folders.items():
        card = describe(folder)
        seen[name] |= run_alone(folder, card)
        if card.family is Family.DECODER:
            seen[name]["joined"] = asyncio.run(run_joined(folder, card))
    for name in GGUF:
        try:
            seen[name]["gguf"] = run_gguf(shelf, root / "models" / name)
        except Exception as error:  # noqa: BLE001 - told one by one
            seen[name]["gguf"] = f"{type(error).__name__}: {error}"
    (root / "seen.json").write_text(json.dumps(seen))


if __name__ == "__main__":
    main()
