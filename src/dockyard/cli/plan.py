"""A dry run as a person reads it: what would run where, whether it fits, what it would cost."""

from collections.abc import Mapping
from typing import Any

from dockyard.cli.output import size_text


def readable_plan(plan: Mapping[str, Any]) -> dict[str, Any]:
    """A line for each thing that the deploy would decide."""
    memory, cost, parameters = plan["memory"], plan["estimatedHourlyCost"], plan["parameters"]
    scaling = parameters["scalingParameters"]
    before = "a first deploy" if plan["version"] == 1 else f"a redeploy, version {plan['version']}"
    lines = {
        "deploys as": f"{plan['versionName']} ({before})",
        "engine": f"{plan['engine']}, computing in {plan['computeType']}",
        "runs on": plan["runsOn"],
        "weights": "converted already" if plan["artifactCached"] else "to be converted first",
        "context": f"{memory['contextLength']:,} tokens",
        **_memory_lines(plan["deviceType"], plan["tensorParallel"], memory),
        "replicas": _replicas(scaling),
        "batch": f"up to {scaling['maxBatchSize']} requests at once",
        "sampling": _sampling(parameters["hyperParameters"]),
        "cost": _cost(cost, scaling),
    }
    if plan["engine"] != "ctranslate2":  # the others load what was imported
        del lines["weights"]
    return lines


def _memory_lines(device: str, gpus: int, memory: Mapping[str, Any]) -> dict[str, str]:
    each = f" on each of {gpus} GPUs" if gpus > 1 else ""
    share = memory["bytesEach"] / memory["gpuBytes"]
    size = size_text(memory["gpuBytes"])
    parts = ("weights", "weightsBytes"), ("cache", "cacheBytes"), ("work", "workBytes"), ("engine", "overheadBytes")
    return {
        f"on {device}": f"{size_text(memory['bytesEach'])}{each} of {size} ({share:.0%}): fits",
        "of which": ", ".join(f"{name} {size_text(memory[field])}" for name, field in parts),
        "on this host": f"{size_text(memory['hostTotalBytes'])} for a replica, where its CPU stands in",
    }


def _replicas(scaling: Mapping[str, Any]) -> str:
    least, most = scaling["minReplicas"], scaling["maxReplicas"]
    if least == most:
        return str(least)
    return f"{least} to {most}; up after {scaling['scaleUpDelay']} ms, down after {scaling['scaleDownDelay']} ms"


def _sampling(hyper: Mapping[str, Any]) -> str:
    told = [f"{name} {hyper[name]:g}" for name in ("temperature", "maxTokens", "topP", "topK")]
    stops = [repr(stop) for stop in hyper["stopSequence"]]
    return ", ".join((*told, *([f"stops at {' or '.join(stops)}"] if stops else [])))


def _cost(cost: Mapping[str, Any], scaling: Mapping[str, Any]) -> str:
    least, most = scaling["minReplicas"], scaling["maxReplicas"]
    if least == most:
        return f"${cost['min']:.2f} an hour, by the provider's list price"
    return f"${cost['min']:.2f} an hour with {least}, ${cost['max']:.2f} with {most}, by the provider's list price"
