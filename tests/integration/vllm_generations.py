"""What vLLM makes of each model in a folder: `python vllm_generations.py FOLDER PROMPTS COUNT` in vLLM's own Python.

Prints a line of JSON for each: the ids after each prompt, or the error. All in one process, one model after the other:
the imports take longer than all of the models. The options are those of `dockyard.engines.vllm`.
"""

import json
import os
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

os.environ |= {
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "VLLM_USE_V2_MODEL_RUNNER": "0",
    "VLLM_LOGGING_LEVEL": "ERROR",
}

CACHE_BYTES = 16 << 20


def main() -> None:
    vllm: Any = import_module("vllm")
    registry: Any = import_module("vllm.model_executor.models.registry")
    registry._run_in_subprocess = lambda work: work()  # it would import all of vLLM again for each architecture
    lora_request: Any = import_module("vllm.lora.request").LoRARequest
    clean_up: Any = import_module("vllm.distributed").cleanup_dist_env_and_memory
    prompts = [vllm.TokensPrompt(prompt_token_ids=ids) for ids in json.loads(sys.argv[2])]
    wish = vllm.SamplingParams(temperature=0.0, max_tokens=int(sys.argv[3]), detokenize=False)
    for folder in sorted(path for path in Path(sys.argv[1]).iterdir() if path.is_dir()):
        told: Any
        adapter = folder / "adapter"
        options = {"enable_lora": True, "max_lora_rank": 16} if adapter.exists() else {}
        lora = lora_request("adapter", 1, str(adapter)) if adapter.exists() else None
        try:
            model = vllm.LLM(
                str(folder),
                skip_tokenizer_init=True,
                load_format="safetensors",
                dtype="float32",
                max_num_seqs=2,
                enforce_eager=True,
                enable_prefix_caching=True,
                generation_config="vllm",
                distributed_executor_backend="uni",
                kv_cache_memory_bytes=CACHE_BYTES,
                **options,
            )
            made = model.generate(prompts, wish, use_tqdm=False, lora_request=lora)
            told = [list(one.outputs[0].token_ids) for one in made]
            del model
        except Exception as error:  # noqa: BLE001 - told one by one
            told = f"{type(error).__name__}: {error}"
        clean_up()
        sys.stdout.write(json.dumps({folder.name: told}) + "\n")
        sys.stdout.flush()
    os._exit(0)  # what is left of the engines has nothing to say


if __name__ == "__main__":
    main()
