"""Engine against engine: CTranslate2 int8, Transformers float32 and vLLM float32, behind Dockyard and offline.

The same model, deployed with each engine behind one Dockyard and asked over the same HTTP, and offline with the
engines' own libraries, threads as the replicas have them. Tokens/s of one request and of ten at once; the time to the
first token of a stream alone, and of ten that come together; memory; and the time from the decision to start a replica
until it is ready, of the first one on the server and of one more in each round. Only one of them computes at a time.
What optimizing a model promises offline must arrive at the client. Memory is the PSS of all processes of a replica,
after its rounds: pages that it shares with a warm spare count in part.
"""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import psutil

from bench.generation import Endpoint, first_token_s, tokens_per_s, warm_up
from bench.models import BenchModel, ensure_endless_smollm2
from bench.outcome import (
    Arguments,
    Better,
    Outcome,
    Ratio,
    Target,
    installed_version,
    parse_arguments,
    parser,
    recording,
)
from bench.peers.offline import OfflineEngine
from bench.processes import BenchFailed, tree, usage
from bench.server import INT8, PLAIN, VLLM, DockyardServer, Json
from bench.vllm_python import vllm_python, vllm_version

INT8_ENGINE, PLAIN_ENGINE, VLLM_ENGINE = "ctranslate2", "transformers", "vllm"
ENGINES: dict[str, Json] = {INT8_ENGINE: INT8, PLAIN_ENGINE: PLAIN, VLLM_ENGINE: VLLM}
PLACES = ("http", "offline")
BATCHES = (1, 10)
MEMORY = "memory, PSS"
FIRST_START, START = "start, the first", "start, one more"
SHORT_TOKENS = 8  # of a stream whose first token alone is of interest
START_TIMEOUT_S = 900  # vLLM's on a machine with other work
TOLERANCE = 0.03  # "no worse" of two numbers that are both measured


@dataclass(frozen=True)
class Length:
    """Tokens of each request, how many full batches one after the other make a measurement, and how many streams."""

    tokens: int
    repeats: int
    streams: int


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--only", nargs="+", choices=tuple(ENGINES), help="these engines alone")
    arguments = parse_arguments(options, rounds=5)
    question = "The engines with the same model on the same CPU: over HTTP, and offline"
    with recording(arguments, "engines_compared", "Engine against engine", question) as outcome:
        with _subjects(outcome, arguments.options.only or list(ENGINES)) as subjects:
            for number in range(arguments.rounds):
                _round(outcome, number, subjects, arguments)
        _judge(outcome)


def _round(outcome: Outcome, number: int, subjects: "list[Served | Offline]", arguments: Arguments) -> None:
    quick = arguments.quick
    length = Length(tokens=12, repeats=1, streams=3) if quick else Length(tokens=64, repeats=2, streams=10)

    def add(metric: str, unit: str, subject: "Served | Offline", sample: float) -> None:
        outcome.add(number, metric, unit, subject.name, sample)
        print(f"round {number + 1} {subject.name}, {metric}: {sample:.3g} {unit}", flush=True)

    for batch in BATCHES:
        for subject in subjects:
            add(_speed(batch), "tokens/s", subject, subject.tokens_per_s(batch, length))
    served = [subject for subject in subjects if isinstance(subject, Served)]
    for batch in BATCHES:
        for subject in served:
            add(_first_token(batch), "s", subject, subject.first_token_s(batch, length))
    for subject in subjects:
        add(MEMORY, "MiB", subject, subject.pss_mib())
    for subject in served:
        add(START, "s", subject, subject.start_another())


class Served:
    """A deployment behind Dockyard, with one replica."""

    def __init__(self, server: DockyardServer, model_id: str, engine: str) -> None:
        self.name = f"{engine} http"
        self._server, self._model_id, self._engine = server, model_id, engine
        deployment_id = self._deploy(engine)
        (replica,) = server.replicas(deployment_id)
        self.first_start_s = server.start_s(deployment_id)
        self._endpoint = Endpoint(server.url, engine, {"x-api-key": server.key})
        self._process = psutil.Process(replica["pid"])
        warm_up(self._endpoint, batch=max(BATCHES))

    @property
    def threads(self) -> int:
        return int(self._process.environ()["OMP_NUM_THREADS"])

    def tokens_per_s(self, batch: int, length: Length) -> float:
        return tokens_per_s(self._endpoint, tokens=length.tokens, batch=batch, batches=length.repeats, stream=False)

    def first_token_s(self, together: int, length: Length) -> float:
        """Of streams that come alone, one after the other; or of some that come together, several times."""
        alone = together == 1
        tokens, times = (SHORT_TOKENS, length.streams) if alone else (length.tokens, length.repeats)
        return first_token_s(self._endpoint, tokens=tokens, together=together, times=times)

    def pss_mib(self) -> float:
        return usage(tree(self._process.pid)).pss_mib

    def start_another(self) -> float:
        """Seconds that another replica takes while this one is idle; it ends at once."""
        name = f"{self._engine} once more"
        took = self._server.start_s(self._deploy(name))
        self._server.undeploy(self._model_id, name)
        return took

    def _deploy(self, name: str) -> str:
        job = self._server.begin_deploy(self._model_id, name, ENGINES[self._engine], maxBatchSize=max(BATCHES))
        return self._server.wait_job(job, START_TIMEOUT_S)["deploymentId"]


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
def _subjects(outcome: Outcome, wanted: list[str]) -> Iterator[list[Served | Offline]]:
    """All loaded, idle unless asked. Those that are compared with each other follow each other."""
    model = ensure_endless_smollm2()
    with ExitStack() as stack:
        python = _vllm_at_hand(outcome) if VLLM_ENGINE in wanted else None
        elsewhere = {"DOCKYARD_VLLM_PYTHON": str(python)} if python else {}
        server = stack.enter_context(DockyardServer(None, 0, **elsewhere))
        model_id = server.import_model(model.folder)
        served: list[Served] = []
        offline: list[Offline] = []
        at_hand = [engine for engine in ENGINES if engine in wanted and engine not in outcome.not_run]
        outcome.versions |= {name: installed_version(name) for name in (INT8_ENGINE, PLAIN_ENGINE, "torch")}
        for engine in at_hand:
            replica = Served(server, model_id, engine)
            outcome.add(0, FIRST_START, "s", replica.name, replica.first_start_s)
            served.append(replica)
            offline.append(stack.enter_context(_offline(model, engine, replica.threads)))
            outcome.remarks.append(f"{engine}: {replica.threads} thread(s) in the replica and offline")
        yield [*served, *offline]


def _vllm_at_hand(outcome: Outcome) -> Path | None:
    """Notes its version, or why it is not run."""
    try:
        python = vllm_python()
    except BenchFailed as error:
        outcome.not_run[VLLM_ENGINE] = str(error)
        return None
    outcome.versions[VLLM_ENGINE] = vllm_version()
    return python


@contextmanager
def _offline(model: BenchModel, engine: str, threads: int) -> Iterator[Offline]:
    with OfflineEngine(engine, model.artifact(engine), model.folder, threads) as loaded:
        yield Offline(loaded)


def _judge(outcome: Outcome) -> None:
    """What is gained over HTTP ÷ what is gained offline in the same round; then what else one may want to know."""
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
    waits: list[tuple[str, Better]] = [(metric, "lower") for metric in (*map(_first_token, BATCHES), START)]
    for metric, better in waits:
        _gain(outcome, metric, "http", better)
    for metric, better in [*metrics, (MEMORY, "lower"), *waits]:
        outcome.compare(metric, f"{VLLM_ENGINE} http", f"{PLAIN_ENGINE} http", better)
    for metric, better in metrics:
        outcome.compare(metric, f"{VLLM_ENGINE} http", f"{VLLM_ENGINE} offline", better)


def _gain(outcome: Outcome, metric: str, place: str, better: Better) -> Ratio | None:
    return outcome.compare(metric, f"{INT8_ENGINE} {place}", f"{PLAIN_ENGINE} {place}", better)


def _speed(batch: int) -> str:
    return f"tokens/s, batch {batch}"


def _first_token(together: int) -> str:
    return "first token, alone" if together == 1 else f"first token, {together} together"


if __name__ == "__main__":
    main()
