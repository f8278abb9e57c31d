"""Every field of a deploy: values that are taken, and values that are refused with their reason, as JSON text."""

import json
from typing import Any, NamedTuple

from tests.integration.api_rig import published_body

DEVICES = ["g4dn.xlarge", "g5.xlarge", "g5.2xlarge", "g6e.xlarge"]
DEVICES += ["g4dn.12xlarge", "g5.12xlarge", "g5.48xlarge", "g4dn.metal"]
MEGABYTE = json.dumps("x" * 1_000_000)
MISSING = ""  # in place of a value: the field is absent


class Case(NamedTuple):
    """`value` as JSON text at `field`; `reason` None: taken. `at`: where the problem is told, if not at `field`."""

    field: str
    value: str
    reason: str | None = None
    at: str | None = None

    @property
    def id(self) -> str:
        return f"{self.field}={self.value[:24] or 'absent'}"


def _numbers(field: str, low: int, high: int, *, required: bool, whole: bool) -> list[Case]:
    inside = (
        [str(low), str(low + 1), str(high - 1), str(high)]
        if whole
        else [f"{low}", "0.001", f"{high - 0.001}", f"{high}", "-0.0"]
    )
    outside = [str(low - 1), str(high + 1)] if whole else [str(low - 0.001), str(high + 0.001), "1e400", "-1e400"]
    wrong = [
        '"1"',
        "true",
        "[]",
        "{}",
        "NaN",
        "Infinity",
        "-Infinity",
        MEGABYTE,
        *(["1.5", "1.0", "1e0"] if whole else []),
    ]
    return [
        *(Case(field, value) for value in inside),
        *(Case(field, value, "OUT_OF_RANGE") for value in [*outside, "9" * 60, "-" + "9" * 5000]),
        *(Case(field, value, "WRONG_TYPE") for value in wrong),
        *_absent(field, required=required),
    ]


def _absent(field: str, *, required: bool) -> list[Case]:
    if required:
        return [Case(field, MISSING, "MISSING_FIELD"), Case(field, "null", "WRONG_TYPE")]
    return [Case(field, MISSING), Case(field, "null")]


def _objects(field: str, *, required: bool) -> list[Case]:
    return [
        *(Case(field, value, "WRONG_TYPE") for value in ('"x"', "3", "true", "[]", "NaN", MEGABYTE)),
        *_absent(field, required=required),
    ]


def _choices(field: str, choices: list[str], *, required: bool) -> list[Case]:
    return [
        *(Case(field, json.dumps(choice)) for choice in choices),
        *(
            Case(field, value, "NOT_IN_ENUM")
            for value in ('"x"', f'" {choices[-1]}"', f'"{choices[-1].upper()}"', MEGABYTE)
        ),
        *(Case(field, value, "WRONG_TYPE") for value in ("1", "true", "[]", "{}", "NaN")),
        Case(field, '"\\ud800"', "BAD_FORMAT"),
        *_absent(field, required=required),
    ]


_NAMES = [
    *(Case("name", json.dumps(name)) for name in ("a", "0", "Flan T5", "a.b_c-d", "a ", "x" * 64)),
    *(Case("name", value, "OUT_OF_RANGE") for value in ('""', json.dumps("x" * 65), MEGABYTE)),
    *(
        Case("name", json.dumps(name), "BAD_FORMAT")
        for name in (" a", ".a", "-a", "_a", "a\n", "a/b", "ä", "a\u0000", "😀", "1١")
    ),
    Case("name", '"\\ud800"', "BAD_FORMAT"),
    *(Case("name", value, "WRONG_TYPE") for value in ("1", "true", "[]", "{}", "NaN")),
    *_absent("name", required=True),
]
_STOP = "hyperParameters.stopSequence"
_STOPS = [
    *(
        Case(_STOP, value)
        for value in ("[]", '["a"]', json.dumps(["x" * 256]), json.dumps(["x"] * 16), '["\\n\\n", "😀", "\\u0000"]')
    ),
    Case(_STOP, json.dumps(["x"] * 17), "OUT_OF_RANGE"),
    Case(_STOP, json.dumps([1] * 200_000), "OUT_OF_RANGE"),
    Case(_STOP, '["a", ""]', "OUT_OF_RANGE", f"{_STOP}[1]"),
    Case(_STOP, json.dumps(["x" * 257]), "OUT_OF_RANGE", f"{_STOP}[0]"),
    Case(_STOP, f"[{MEGABYTE}]", "OUT_OF_RANGE", f"{_STOP}[0]"),
    Case(_STOP, '["a", "b", 3]', "WRONG_TYPE", f"{_STOP}[2]"),
    Case(_STOP, "[null]", "WRONG_TYPE", f"{_STOP}[0]"),
    Case(_STOP, "[NaN]", "WRONG_TYPE", f"{_STOP}[0]"),
    Case(_STOP, '["\\udc00"]', "BAD_FORMAT", f"{_STOP}[0]"),
    *(Case(_STOP, value, "WRONG_TYPE") for value in ('"a"', "1", "true", "{}", "NaN", MEGABYTE)),
    *_absent(_STOP, required=False),
]
_FLAGS = [
    *(Case("isDeployedPreviously", value) for value in ("true", "false")),
    *(
        Case("isDeployedPreviously", value, "WRONG_TYPE")
        for value in ("0", "1", '"true"', '""', "[]", "{}", "NaN", MEGABYTE)
    ),
    *_absent("isDeployedPreviously", required=False),
]
_MIN = "scalingParameters.minReplicas"

CASES: tuple[Case, ...] = (
    *_NAMES,
    *_objects("hyperParameters", required=True),
    *_numbers("hyperParameters.temperature", 0, 2, required=True, whole=False),
    *_numbers("hyperParameters.maxTokens", 0, 512, required=True, whole=True),
    *_numbers("hyperParameters.topP", 0, 1, required=True, whole=False),
    *_numbers("hyperParameters.topK", 1, 100, required=True, whole=True),
    *_STOPS,
    *_objects("scalingParameters", required=False),
    *_numbers("scalingParameters.maxBatchSize", 1, 256, required=False, whole=True),
    *(
        case
        for case in _numbers(_MIN, 1, 10, required=False, whole=True)
        if case.reason is not None or case.value in ("1", "2", MISSING, "null")
    ),
    Case(_MIN, "3", "OUT_OF_RANGE"),  # above the sample's maxReplicas
    *_numbers("scalingParameters.maxReplicas", 1, 50, required=False, whole=True),
    *_numbers("scalingParameters.scaleUpDelay", 1, 1000, required=False, whole=True),
    *_numbers("scalingParameters.scaleDownDelay", 50, 2000, required=False, whole=True),
    *_choices("deviceType", DEVICES, required=True),
    Case("deviceType", '""', "NOT_IN_ENUM"),
    *_objects("optimizationInfo", required=False),
    *_choices("optimizationInfo.optimizationType", ["", "ctranslate2", "vllm"], required=False),
    Case("optimizationInfo.optimizationType", '"transformers"', "NOT_IN_ENUM"),
    Case("optimizationInfo.optimizationType", '"echo"', "NOT_IN_ENUM"),
    *_choices("optimizationInfo.quantizationType", ["", "no_quantization"], required=False),
    Case("optimizationInfo.quantizationType", '"int8_float16"', "QUANTIZATION_NOT_SUPPORTED"),
    *_FLAGS,
    Case("unknown", "[1, null, true]"),
    Case("unknown", '[1, {"a": [Infinity]}]', "WRONG_TYPE"),
    Case("unknown", MEGABYTE[:900_000] + '"'),
)


def body_with(case: Case) -> str:
    """The published sample as JSON text, with the case's value in its place."""
    body = published_body()
    *parents, last = case.field.split(".")
    place: dict[str, Any] = body
    for parent in parents:
        place = place[parent]
    marker = "in-place-of-the-value"
    if case.value == MISSING:
        place.pop(last, None)
    else:
        place[last] = marker
    return json.dumps(body).replace(json.dumps(marker), case.value)
