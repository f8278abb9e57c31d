"""CTranslate2 int8 divided by plain Transformers float32: tokens/s of one request and of ten at once, and memory.

The same model twice: deployed with either engine behind one Dockyard, asked over the same HTTP, and offline with the
engines' own libraries, threads as the replicas have them. What optimizing a model promises offline must arrive at the
client. Memory is the PSS of the process that holds the model, after its rounds.
"""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from statistics import median

import psutil

from bench.generation import Endpoint, tokens_per_s, warm_up
from bench.models import ensure_endless_smollm2
from bench.outcome import Better, Outcome, Ratio, Target, installed_version, parse_arguments, recording
from bench.peers.offline import OfflineEngine
from bench.processes import usage
from bench.server import INT8, PLAIN, DockyardServer

INT8_ENGINE, PLAIN_ENGINE = "ctranslate2", "transformers"
PLACES = ("http", "offline")
BATCHES = (1, 10)
MEMORY = "memory, PSS"
TOLERANCE = 0.03  # "no worse" of two numbers that are both measured


@dataclass(frozen=True)
class Length:
    """Tokens of each request, and how many full batches one after the other make a measurement."""

    tokens: int
    repeats: int


def main() -> None:
    arguments = parse_arguments(__doc__, rounds=5)
    length = Length(tokens=12, repeats=1) if arguments.quick else Length(tokens=64, repeats=2)
    question = "CTranslate2 int8 ÷ Transformers float32, the same model over HTTP, and offline"
    with recording(arguments, "engines_compared", "What the optimized engine gains", question) as outcome:
        with _subjects(outcome) as subjects:
            for number in range(arguments.rounds):
                for batch in BATCHES:
                    for subject in subjects:
                        speed = subject.tokens_per_s(batch, length)
                        outcome.add(number, _speed(batch), "tokens/s", subject.name, speed)
                        print(f"round {number + 1} {subject.name} ×{batch}: {speed:.1f} tokens/s", flush=True)
                for subject in subjects:
                    outcome.add(number, MEMORY, "MiB", subject.name, subject.pss_mib())
        outcome.versions |= {name: installed_version(name) for name in (INT8_ENGINE, PLAIN_ENGINE, "torch")}
        _judge(outcome)


class Served:
    """A deployment behind Dockyard."""

    def __init__(self, server: DockyardServer, model_id: str, engine: str) -> None:
        optimization = INT8 if engine == INT8_ENGINE else PLAIN
        job = server.deploy(model_id, engine, optimization, maxBatchSize=max(BATCHES))
        (replica,) = server.replicas(job["deploymentId"])
        self.name = f"{engine} http"
        self._endpoint = Endpoint(server.url, engine, {"x-api-key": server.key})
        self._process = psutil.Process(replica["pid"])
        warm_up(self._endpoint, batch=max(BATCHES))

    @property
    def threads(self) -> int:
        return int(self._process.environ()["OMP_NUM_THREADS"])

    def tokens_per_s(self, batch: int, length: Length) -> float:
        return tokens_per_s(self._endpoint, tokens=length.tokens, batch=batch, batches=length.repeats, stream=False)

    def pss_mib(self) -> float:
        return usage([self._process]).pss_mib


class Offline:
    """The engine's own library on the same artifact."""

    def __init__(self, engine: OfflineEngine) -> None:
        self.name = f"{engine.engine} offline"
        self._engine = engine

    def tokens_per_s(self, batch: int, length: Length) -> float:
        return self._engine.tokens_per_s(batch=batch, tokens=length.tokens, batches=length.repeats)

    def pss_mib(self) -> float:
        return self._engine.usage().pss_mib


@contextmanager
def _subjects(outcome: Outcome) -> Iterator[list[Served | Offline]]:
    """All loaded, idle unless asked. Those that are compared with each other follow each other."""
    model = ensure_endless_smollm2()
    with ExitStack() as stack:
        server = stack.enter_context(DockyardServer())
        model_id = server.import_model(model.folder)
        served = [Served(server, model_id, engine) for engine in (INT8_ENGINE, PLAIN_ENGINE)]
        offline: list[Offline] = []
        artifacts = {INT8_ENGINE: model.ctranslate2, PLAIN_ENGINE: model.folder}
        for (engine, artifact), replica in zip(artifacts.items(), served, strict=True):
            outcome.remarks.append(f"{engine}: {replica.threads} thread(s) in the replica and offline")
            loaded = stack.enter_context(OfflineEngine(engine, artifact, model.folder, replica.threads))
            offline.append(Offline(loaded))
        yield [*served, *offline]


def _judge(outcome: Outcome) -> None:
    """What is gained over HTTP ÷ what is gained offline in the same round."""
    metrics: list[tuple[str, Better]] = [(_speed(batch), "higher") for batch in BATCHES]
    for metric, better in [*metrics, (MEMORY, "lower")]:
        http, offline = (_gain(outcome, metric, place, better) for place in PLACES)
        if http is None or offline is None:
            continue
        shares = [one / other for one, other in zip(http.samples, offline.samples, strict=True)]
        share = median(shares)
        met = share >= 1 - TOLERANCE if better == "higher" else share <= 1 + TOLERANCE
        found = f"{http.median:.2f} ÷ {offline.median:.2f}: {share:.3f} ({min(shares):.3f} to {max(shares):.3f})"
        outcome.targets.append(Target(f"{metric}: within {TOLERANCE:.0%} of the gain offline, or better", met, found))


def _gain(outcome: Outcome, metric: str, place: str, better: Better) -> Ratio | None:
    return outcome.compare(metric, f"{INT8_ENGINE} {place}", f"{PLAIN_ENGINE} {place}", better)


def _speed(batch: int) -> str:
    return f"tokens/s, batch {batch}"


if __name__ == "__main__":
    main()
